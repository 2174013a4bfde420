package deployment

// Quantities of memory and processors, as deployments spell them: Kubernetes'
// forms and Docker's.

import (
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// Swarm refuses less (api/validation in SwarmKit; the engine asks for 6 MiB
// when it creates the container), and more is a slip of the hand.
const (
	leastMemory   = 6 << 20
	mostMemory    = 1 << 50
	leastNanoCPUs = 1e6
	mostNanoCPUs  = 1e6 * 1e9
)

// memoryUnits are Kubernetes' suffixes where they end in i or are upper case,
// and Docker's, which are powers of 1024, otherwise.
var memoryUnits = map[string]int64{
	"":   1,
	"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40,
	"M": 1e6, "G": 1e9, "T": 1e12,
	"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40,
	"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40,
	"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}

var (
	errMemory = errors.New("want memory such as 128Mi, 1Gi, 128M (of 1,000,000 bytes) or Docker's 128m")
	errCPU    = errors.New("want processors such as 100m, 0.5 or 2")
)

// parseMemory returns bytes. What is less than the engine starts a container
// with becomes that least.
func parseMemory(s string) (int64, error) {
	number := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	unit, ok := memoryUnits[s[len(number):]]
	if !ok {
		return 0, errMemory
	}
	n, ok := parseQuantity(number, unit)
	if !ok {
		return 0, errMemory
	}
	if n > mostMemory {
		return 0, fmt.Errorf("more than %d bytes", int64(mostMemory))
	}
	return max(n, leastMemory), nil
}

// parseCPU returns billionths of a processor.
func parseCPU(s string) (int64, error) {
	number, unit := s, int64(1e9)
	if milli, ok := strings.CutSuffix(s, "m"); ok {
		number, unit = milli, 1e6
	}
	n, ok := parseQuantity(number, unit)
	if !ok {
		return 0, errCPU
	}
	if n > mostNanoCPUs {
		return 0, errors.New("more than 1,000,000 processors")
	}
	return max(n, leastNanoCPUs), nil
}

// Parse returns bytes and billionths of a processor, 0 for what was not asked
// for.
func (r *Resources) Parse() (memory, cpu int64, err error) {
	if r == nil {
		return 0, 0, nil
	}
	var errs [2]error
	if r.Memory != "" {
		memory, errs[0] = parseMemory(r.Memory)
	}
	if r.CPU != "" {
		cpu, errs[1] = parseCPU(r.CPU)
	}
	return memory, cpu, errors.Join(errs[:]...)
}

// parseQuantity returns a decimal number above 0 times unit, rounded up.
func parseQuantity(number string, unit int64) (int64, bool) {
	if len(number) > 32 || strings.Trim(number, "0123456789.") != "" {
		return 0, false // no sign, no exponent, no fraction of another kind
	}
	value, ok := new(big.Rat).SetString(number)
	if !ok || value.Sign() <= 0 {
		return 0, false
	}
	value.Mul(value, new(big.Rat).SetInt64(unit))
	up := new(big.Int).Add(value.Num(), new(big.Int).Sub(value.Denom(), big.NewInt(1)))
	n := up.Quo(up, value.Denom())
	if !n.IsInt64() {
		return 1<<63 - 1, true // refused as too much
	}
	return n.Int64(), true
}
