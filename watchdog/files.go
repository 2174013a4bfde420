package watchdog

// Mode static: the files of a directory.

import "net/http"

// newFiles returns what serves the files.
func (h *Handler) newFiles() func(*reply, *http.Request) {
	files := http.FileServer(http.Dir(h.cfg.StaticPath))
	return func(w *reply, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			fail(w, http.StatusMethodNotAllowed, "there are files here, to GET")
			return
		}
		files.ServeHTTP(w, r)
	}
}
