// Command execrun answers each HTTP request with a process, the short way:
// exec.CommandContext(...).Run() behind net/http. It is what the watchdog is
// compared with.
//
//	execrun ADDRESS PROGRAM [ARG...]
package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"time"
)

const limit = 30 * time.Second

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: execrun ADDRESS PROGRAM [ARG...]")
		os.Exit(2)
	}
	err := http.ListenAndServe(os.Args[1], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), limit)
		defer cancel()
		var out bytes.Buffer
		cmd := exec.CommandContext(ctx, os.Args[2], os.Args[3:]...)
		cmd.Stdin, cmd.Stdout = r.Body, &out
		if err := cmd.Run(); err != nil {
			http.Error(w, "the process failed", http.StatusInternalServerError)
			return
		}
		w.Write(out.Bytes())
	}))
	fmt.Fprintln(os.Stderr, "execrun:", err)
	os.Exit(1)
}
