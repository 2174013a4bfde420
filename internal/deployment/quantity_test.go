package deployment

import "testing"

func TestParseMemory(t *testing.T) {
	for _, c := range []struct {
		in   string
		want int64
	}{
		{"128Mi", 128 << 20}, {"1Gi", 1 << 30}, {"1.5Gi", 3 << 29}, {"64Ki", leastMemory}, {"2Ti", 2 << 40},
		{"128M", 128e6}, {"1G", 1e9}, {"16777216", 16 << 20},
		{"128m", 128 << 20}, {"128mb", 128 << 20}, {"1g", 1 << 30}, {"128mib", 128 << 20}, {"16384k", 16 << 20},
		{"5Mi", leastMemory}, {"1", leastMemory}, {"0.1Gi", 107374183},
	} {
		got, err := parseMemory(c.in)
		if err != nil || got != c.want {
			t.Errorf("%q: got %d, %v, want %d", c.in, got, err, c.want)
		}
	}
	for _, in := range []string{"", "Mi", "-1Mi", "0", "1e3", "1Pi", "12 Mi", "1,5Gi", "1/2Gi", "0x10", "NaN", "1mI", "9999999999999999999999", "1025Ti", ".", "+1Gi", "1_0Mi"} {
		if got, err := parseMemory(in); err == nil {
			t.Errorf("%q: got %d, want an error", in, got)
		}
	}
}

func TestParseCPU(t *testing.T) {
	for _, c := range []struct {
		in   string
		want int64
	}{
		{"100m", 1e8}, {"0.5", 5e8}, {"2", 2e9}, {"1.5", 15e8}, {"0.1m", leastNanoCPUs}, {"1500m", 15e8}, {".5", 5e8},
	} {
		got, err := parseCPU(c.in)
		if err != nil || got != c.want {
			t.Errorf("%q: got %d, %v, want %d", c.in, got, err, c.want)
		}
	}
	for _, in := range []string{"", "m", "-1", "0", "1e3", "100M", "1 ", "half", "1/2", "1000001"} {
		if got, err := parseCPU(in); err == nil {
			t.Errorf("%q: got %d, want an error", in, got)
		}
	}
}
