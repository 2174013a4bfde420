package watchdog

// Bodies that are kept until their length is known: in mode cgi a process is
// told how long its body is, and takes it for empty otherwise (RFC 3875, section
// 4.1.2).

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
)

// keptInMemory is how much of a body is kept in memory. The rest is in a file.
const keptInMemory = 1 << 20

// keptAtOnce is how many bodies of max_body a handler keeps at once, or as many
// bytes of shorter ones.
const keptAtOnce = 16

// errTooLong is returned for a body that is longer than may be kept.
var errTooLong = errors.New("the body is too long to be kept")

// errTooMany is returned while other bodies take all the room.
var errTooMany = errors.New("too much is kept of other bodies")

// errKeep is wrapped by what keeps the watchdog from keeping a body.
var errKeep = errors.New("keep body")

// errNoPlace is wrapped with errKeep where the place for files is missing or
// cannot be written to, which trying again does not change.
var errNoPlace = errors.New("no place for files")

// A keptBody has been read to its end, and can be read once more.
type keptBody struct {
	size int64
	head []byte
	file *os.File // what follows the head; nil: nothing
	room *keptRoom
	took int64 // of room
}

// A keptRoom is what all bodies that are kept share.
type keptRoom struct {
	size int64
	used atomic.Int64
}

// keep reads src to its end, as far as there is room. The caller must close what
// it gets.
func keep(src io.Reader, limit int64, room *keptRoom) (_ *keptBody, err error) {
	k := &keptBody{room: room}
	defer func() {
		if err != nil {
			k.close()
		}
	}()
	counted := keepReader{k, src}
	if k.head, err = io.ReadAll(io.LimitReader(counted, min(limit+1, keptInMemory))); err != nil {
		return nil, err
	}
	k.size = int64(len(k.head))
	if k.size == keptInMemory {
		if err := k.keepRest(counted, limit+1-k.size); err != nil {
			return nil, err
		}
	}
	if k.size > limit {
		return nil, errTooLong
	}
	return k, nil
}

// A keepReader takes room for what is read.
type keepReader struct {
	k   *keptBody
	src io.Reader
}

func (r keepReader) Read(b []byte) (int, error) {
	n, err := r.src.Read(b)
	r.k.took += int64(n)
	if r.k.room.used.Add(int64(n)) > r.k.room.size {
		return n, errTooMany
	}
	return n, err
}

// keepRest moves up to limit bytes of src to a file without a name.
func (k *keptBody) keepRest(src io.Reader, limit int64) (err error) {
	if k.file, err = os.CreateTemp("", "body-"); err != nil {
		for _, lasting := range []error{fs.ErrNotExist, fs.ErrPermission, syscall.ENOTDIR, syscall.EROFS} {
			if errors.Is(err, lasting) {
				err = fmt.Errorf("%w: %w", errNoPlace, err)
			}
		}
		return fmt.Errorf("%w: %w", errKeep, err)
	}
	if err := os.Remove(k.file.Name()); err != nil {
		return fmt.Errorf("%w: %w", errKeep, err)
	}
	n, err := io.Copy(keepWriter{k.file}, io.LimitReader(src, limit))
	if err != nil {
		return err
	}
	k.size += n
	if _, err := k.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("%w: %w", errKeep, err)
	}
	return nil
}

// A keepWriter tells its own errors from those of what is read.
type keepWriter struct{ file *os.File }

func (w keepWriter) Write(b []byte) (int, error) {
	n, err := w.file.Write(b)
	if err != nil {
		err = fmt.Errorf("%w: %w", errKeep, err)
	}
	return n, err
}

func (k *keptBody) reader() io.Reader {
	if k.file == nil {
		return bytes.NewReader(k.head)
	}
	return io.MultiReader(bytes.NewReader(k.head), k.file)
}

// close may be called on nil, and must be called once.
func (k *keptBody) close() {
	if k == nil {
		return
	}
	if k.file != nil {
		k.file.Close()
	}
	k.room.used.Add(-k.took)
}

// keepBody reads a body of unknown length, and makes it one of known length. It
// returns as readInput does.
func (i *invocation) keepBody() (input []byte, whole bool, err error) {
	i.body.limit(i.ctx)
	if i.kept, err = keep(i.body, int64(i.h.cfg.MaxBody), &i.h.kept); err != nil {
		return nil, false, err
	}
	known := *i.r
	known.ContentLength, known.TransferEncoding = i.kept.size, nil
	i.r = &known
	if i.kept.size <= pipeBody {
		return i.kept.head, true, nil
	}
	i.body = &timedReader{body: io.NopCloser(i.kept.reader()), over: true}
	return nil, false, nil
}

// bodyNotKept answers when keep failed for no fault of the connection, and
// reports whether it did.
func (i *invocation) bodyNotKept(err error) bool {
	switch {
	case errors.Is(err, errTooLong):
		fail(i.w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is longer than max_body, which is %d bytes for one without a Content-Length", i.h.cfg.MaxBody))
	case errors.Is(err, errTooMany):
		i.h.log.Warn("cannot keep body", "call_id", i.callID(), "error", err)
		refuse(i.w, http.StatusServiceUnavailable, "too many bodies are being stored now: send it with a Content-Length, or again")
	case errors.Is(err, errNoPlace): // RFC 9110, section 15.5.12
		i.h.log.Error("cannot keep body", "call_id", i.callID(), "error", err)
		fail(i.w, http.StatusLengthRequired, fmt.Sprintf("send the body with a Content-Length: without one no more than %d bytes are taken, since there is no place to store it", keptInMemory-1))
	case errors.Is(err, errKeep):
		i.h.log.Error("cannot keep body", "call_id", i.callID(), "error", err)
		refuse(i.w, http.StatusServiceUnavailable, "the body cannot be stored now: send it with a Content-Length")
	default:
		return false
	}
	return true
}
