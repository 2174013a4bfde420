package deployment

import (
	"fmt"
	"slices"
	"strings"

	"faas/internal/naming"
	"faas/internal/settings"
)

// What a function's process may do, as Linux divides root's power.

const annotationCapabilities = "faas.capabilities"

// defaultCapabilities are those that Docker gives a container (moby,
// oci/caps/defaults.go).
var defaultCapabilities = []string{
	"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE",
	"NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}

// Capabilities returns which capabilities a function has: Docker's without
// NET_RAW and MKNOD, or those of Docker's that the annotation lists; "none" is
// no capability.
func Capabilities(annotations map[string]string) ([]string, error) {
	value, ok := annotations[annotationCapabilities]
	if !ok {
		return slices.DeleteFunc(slices.Clone(defaultCapabilities), func(c string) bool { return c == "NET_RAW" || c == "MKNOD" }), nil
	}
	if strings.TrimSpace(value) == "none" {
		return nil, nil
	}
	var list []string
	for _, c := range settings.SplitList(value) {
		c = strings.TrimPrefix(strings.ToUpper(c), "CAP_")
		if !slices.Contains(defaultCapabilities, c) {
			return nil, fmt.Errorf("%s: %q is none of Docker's default capabilities, %s", annotationCapabilities, naming.Shown(c), strings.Join(defaultCapabilities, ", "))
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s: want none, or capabilities separated by commas", annotationCapabilities)
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}
