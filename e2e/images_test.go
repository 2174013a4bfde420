package e2e

// The images of the tests, built by the repository's own Dockerfiles without
// a network: on a base out of this machine's busybox, by a builder out of this
// machine's Go toolchain.

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"
)

const (
	baseImage    = "faas-e2e/base"    // stands in for alpine
	builderImage = "faas-e2e/builder" // stands in for golang

	gatewayImage  = "faas/gateway"
	watchdogImage = "faas/fwatchdog"
	asyncImage    = "faas/faas-async"
	catImage      = "faas/catservice"
	intentImage   = "faas/hostname-intent"

	imageRevision = "0a1b2c" // that the gateway's image is told to be of
)

// prepare makes what every test relies on: the functions network, and the
// images of the gateway and the first functions on each node.
func (l *lab) prepare(ctx context.Context) error {
	n := l.node(1)
	started := time.Now()
	if err := n.importBase(ctx); err != nil {
		return err
	}
	if err := n.importBuilder(ctx); err != nil {
		return err
	}
	progress(started, "imported")
	if _, err := n.tryDocker(ctx, createNetwork...); err != nil {
		return err
	}
	for _, i := range []struct{ image, dockerfile, dir string }{
		{gatewayImage, "Dockerfile", "."},
		{watchdogImage, "watchdog/Dockerfile", "."},
		{asyncImage, "async/Dockerfile", "."},
		{catImage, "sample-functions/catservice/Dockerfile", "sample-functions/catservice"},
		{intentImage, "sample-functions/HostnameIntent/Dockerfile", "sample-functions/HostnameIntent"},
	} {
		if err := l.build(ctx, i.image, i.dockerfile, i.dir); err != nil {
			return err
		}
		progress(started, i.image)
	}
	return l.spread(ctx, gatewayImage, watchdogImage, asyncImage, catImage, intentImage)
}

// build builds an image on node 1 by a Dockerfile of the repository. The paths
// are relative to the repository; the arguments are more of "docker build".
// Other nodes need it by spread.
func (l *lab) build(ctx context.Context, image, dockerfile, dir string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	args = append([]string{
		"build", "--network", "none", "--tag", image, "--file", filepath.Join(l.root, dockerfile),
		"--build-arg", "GO_IMAGE=" + builderImage, "--build-arg", "BASE_IMAGE=" + baseImage, "--build-arg", "REVISION=" + imageRevision,
	}, args...)
	cmd := l.node(1).dockerCommand(ctx, append(args, filepath.Join(l.root, dir))...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", image, err, out)
	}
	return nil
}

// spread copies images from node 1 to the others.
func (l *lab) spread(ctx context.Context, images ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	file := filepath.Join(l.dir, "images.tar")
	defer os.Remove(file)
	if _, err := l.node(1).tryDocker(ctx, append([]string{"save", "--output", file}, images...)...); err != nil {
		return err
	}
	for _, n := range l.nodes[1:] {
		if _, err := n.tryDocker(ctx, "load", "--quiet", "--input", file); err != nil {
			return err
		}
	}
	return nil
}

// importBase makes an image with what function images expect of a base: a
// shell, the usual commands, a root and a nobody, and a /tmp for all.
func (n *node) importBase(ctx context.Context) error {
	return n.importImage(ctx, baseImage, nil, func(w *archive) error {
		return w.addBase(ctx)
	})
}

// importBuilder makes an image that compiles the repository's programs without
// a network: as the base, with the Go toolchain and the modules that go.mod
// and async/go.mod ask for. The packages of both come compiled, in a build cache that is kept
// between runs; whatever that lacks is compiled in the image.
func (n *node) importBuilder(ctx context.Context) error {
	env, err := goOutput(ctx, n.lab.root, "env", "GOROOT", "GOMODCACHE", "GOVERSION")
	if err != nil {
		return err
	}
	vars := strings.Fields(string(env))
	if len(vars) != 3 {
		return fmt.Errorf("go env: got %q, want three paths without spaces", env)
	}
	goroot, modcache, version := vars[0], vars[1], vars[2]
	cache, err := os.UserCacheDir()
	if err != nil {
		return fmt.Errorf("find a folder for the build cache: %w", err)
	}
	cache = filepath.Join(cache, "faas-e2e", version)
	if err := compileOthers(ctx, n.lab.root, cache); err != nil {
		return err
	}
	var modules []byte
	for _, dir := range []string{n.lab.root, filepath.Join(n.lab.root, "async")} {
		listed, err := goOutput(ctx, dir, "mod", "download", "-json")
		if err != nil {
			return err
		}
		modules = append(modules, listed...)
	}
	changes := []string{
		"ENV PATH=/usr/local/go/bin:/usr/bin:/bin",
		"ENV GOTOOLCHAIN=local",
		"ENV GOPROXY=file:///modules",
		"ENV GOSUMDB=off",
		"ENV GOCACHE=/go-build",
	}
	return n.importImage(ctx, builderImage, changes, func(w *archive) error {
		if err := w.addBase(ctx); err != nil {
			return err
		}
		// Alpine's place for the roots; a machine without them will do for the tests.
		roots, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := w.addFile("etc/ssl/certs/ca-certificates.crt", 0o644, roots); err != nil {
			return err
		}
		if err := w.addToolchain(goroot); err != nil {
			return err
		}
		if err := w.addModules(modcache, modules); err != nil {
			return err
		}
		return w.addTree(cache, "go-build", func(string, bool) bool { return true })
	})
}

// compileOthers compiles what the programs import from elsewhere into a build
// cache, as the Dockerfiles do. The programs themselves stay out: the cache
// would grow with each change to them.
func compileOthers(ctx context.Context, root, cache string) error {
	for _, p := range []struct{ dir, program, tags string }{
		{root, ".", ""}, {root, "./watchdog/fwatchdog", "nethttpomithttp2"}, {filepath.Join(root, "async"), ".", ""},
	} {
		list, err := goOutput(ctx, p.dir, "list", "-deps", "-tags", p.tags, "-f", `{{if or .Standard (not .Module.Main)}}{{.ImportPath}}{{end}}`, p.program)
		if err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath", "-buildvcs=false", "-tags", p.tags}, strings.Fields(string(list))...)...)
		cmd.Dir = p.dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOCACHE="+cache, "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("compile the standard library and the modules: %w: %s", err, out)
		}
	}
	return nil
}

// goOutput runs the go command in dir and returns what it prints.
func goOutput(ctx context.Context, dir string, args ...string) ([]byte, error) {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Stderr = dir, &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, &stderr)
	}
	return out, nil
}

// importImage makes an image of one layer, which write fills. The changes are
// Dockerfile instructions.
func (n *node) importImage(ctx context.Context, image string, changes []string, write func(*archive) error) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	args := []string{"import"}
	for _, c := range changes {
		args = append(args, "--change", c)
	}
	var output bytes.Buffer
	cmd := n.dockerCommand(ctx, append(args, "-", image)...)
	cmd.Stdout, cmd.Stderr = &output, &output
	in, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("import %s: %w", image, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("import %s: %w", image, err)
	}
	w := &archive{tar.NewWriter(in)}
	written := write(w)
	if written == nil {
		written = w.tar.Close()
	}
	in.Close()
	if err := errors.Join(written, cmd.Wait()); err != nil {
		return fmt.Errorf("import %s: %w: %s", image, err, &output)
	}
	return nil
}

// An archive is the file system of an image, written as a tar.
type archive struct{ tar *tar.Writer }

// addBase adds busybox under each of its names and the files around it.
func (w *archive) addBase(ctx context.Context) error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	applets, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("list busybox's applets: %w", err)
	}
	for dir, mode := range map[string]int64{"bin/": 0o755, "usr/bin/": 0o755, "etc/": 0o755, "root/": 0o700, "tmp/": 0o1777} {
		if err := w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: mode}); err != nil {
			return err
		}
	}
	for name, content := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
		"etc/group":  "root:x:0:\nnobody:x:65534:\n",
	} {
		if err := w.addFile(name, 0o644, []byte(content)); err != nil {
			return err
		}
	}
	if err := w.addPath(busybox, "bin/busybox"); err != nil {
		return err
	}
	for applet := range strings.FieldsSeq(string(applets)) {
		if applet == "busybox" {
			continue
		}
		link := &tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + path.Base(applet), Linkname: "busybox"}
		if err := w.tar.WriteHeader(link); err != nil {
			return err
		}
	}
	return nil
}

// addToolchain adds what of a GOROOT compiling needs.
func (w *archive) addToolchain(goroot string) error {
	return w.addTree(goroot, "usr/local/go", func(name string, _ bool) bool {
		top, _, _ := strings.Cut(name, "/")
		switch {
		case strings.HasSuffix(name, "_test.go"), strings.HasSuffix(name, "/testdata"), name == "src/cmd":
			return false
		case top == "bin", top == "pkg", top == "src", name == "VERSION", name == "go.env":
			return true
		}
		return false
	})
}

// addModules adds the modules that "go mod download -json" lists, as a
// file system that GOPROXY=file:// reads.
func (w *archive) addModules(cache string, listed []byte) error {
	cache = filepath.Join(cache, "cache", "download")
	zips := make(map[string]bool)
	for d := json.NewDecoder(bytes.NewReader(listed)); ; {
		var m struct{ Zip string }
		if err := d.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("list the modules: %w", err)
		}
		zips[m.Zip] = true
	}
	// Choosing versions takes the go.mod of more modules than are downloaded.
	return w.addTree(cache, "modules", func(name string, dir bool) bool {
		return dir && name != "sumdb" || strings.HasSuffix(name, ".mod") || strings.HasSuffix(name, ".info") ||
			zips[filepath.Join(cache, name)]
	})
}

// addTree adds the folder dir as name, with every file below it that
// keep says yes to, in folders that it says yes to.
func (w *archive) addTree(dir, name string, keep func(name string, dir bool) bool) error {
	return filepath.WalkDir(dir, func(file string, e fs.DirEntry, err error) error {
		if err != nil || file == dir {
			return err
		}
		rel, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		switch {
		case e.IsDir() && !keep(rel, true):
			return fs.SkipDir
		case e.Type().IsRegular() && keep(rel, false):
			return w.addPath(file, path.Join(name, rel))
		}
		return nil
	})
}

// addPath adds the file at file as name.
func (w *archive) addPath(file, name string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(info.Mode().Perm()), Size: info.Size(), ModTime: info.ModTime()}
	if err := w.tar.WriteHeader(h); err != nil {
		return err
	}
	// A cache may grow under our hands; the header has promised a size.
	_, err = io.CopyN(w.tar, f, info.Size())
	return err
}

// addFile adds a file with the given content.
func (w *archive) addFile(name string, mode int64, content []byte) error {
	if err := w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := w.tar.Write(content)
	return err
}

// static reports whether the program at file needs no shared library.
func static(file string) bool {
	f, err := elf.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}
