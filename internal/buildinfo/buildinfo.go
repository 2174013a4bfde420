// Package buildinfo says which build of a program runs.
package buildinfo

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
)

// An Info names a build.
type Info struct {
	Version  string // such as 1.2.3; "development" if the linker was not told
	Revision string // of the repository; "unknown" if it is not known
}

// New returns the build whose linker was told version and revision. Where it was not,
// revision is the one that the go command noted.
func New(version, revision string) Info {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = cmp.Or(revision, s.Value)
			}
		}
	}
	return Info{cmp.Or(version, "development"), cmp.Or(revision, "unknown")}
}

// String returns one line for people, as in "1.2.3 (revision 0a1b2c, go1.26.0)".
func (i Info) String() string {
	return fmt.Sprintf("%s (revision %s, %s)", i.Version, i.Revision, runtime.Version())
}
