package forkserver

// Detection of changed files.

import (
	"os"
	"syscall"
	"time"
)

// maxStamps bounds the files that are watched: each fork looks at all of them.
const maxStamps = 256

// A stamp is what tells one state of a file from another.
type stamp struct {
	name       string
	dev, inode uint64
	size       int64
	modified   syscall.Timespec
	changed    syscall.Timespec
}

type stamps []stamp

// newStamp returns the stamp of a file as it is now. One that cannot be looked
// at has a stamp, too.
func newStamp(name string) stamp {
	var st syscall.Stat_t
	for syscall.Stat(name, &st) == syscall.EINTR {
	}
	return stamp{name, uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}
}

// changed returns the name of a file that is no longer what it was; "": none.
func (l stamps) changed() string {
	for _, s := range l {
		if newStamp(s.name) != s {
			return s.name
		}
	}
	return ""
}

// changedSince returns the name of a file that was changed between t and now;
// "": none.
func (l stamps) changedSince(t time.Time) string {
	now := time.Now()
	for _, s := range l {
		if at := time.Unix(s.changed.Unix()); at.After(t) && !at.After(now) {
			return s.name
		}
	}
	return ""
}

// absolute returns name as it is seen from anywhere.
func absolute(name string) string {
	if len(name) > 0 && name[0] != '/' {
		if dir, err := os.Getwd(); err == nil {
			return dir + "/" + name
		}
	}
	return name
}
