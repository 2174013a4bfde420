// Package docs tests what is written: links lead somewhere, and files that
// comments name are there.
package docs

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every link into this repository names a file or folder that is there and, in
// a page, a heading that is there.
func TestLinks(t *testing.T) {
	var pages []string
	for _, pattern := range []string{"../*.md", "*.md", "../sample-functions/*/README.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("got no page like %s (%v)", pattern, err)
		}
		pages = append(pages, found...)
	}
	checked := 0
	for _, page := range pages {
		for _, link := range links(prose(t, page)) {
			to, err := url.Parse(link)
			if err != nil {
				t.Errorf("%s: %q is no link: %v", page, link, err)
				continue
			}
			if to.IsAbs() || to.Host != "" {
				continue
			}
			checked++
			target := page
			if to.Path != "" {
				target = filepath.Join(filepath.Dir(page), to.Path)
			}
			if _, err := os.Stat(target); errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %s leads to no file", page, link)
			} else if to.Fragment != "" && !slices.Contains(anchors(prose(t, target)), to.Fragment) {
				t.Errorf("%s: %s leads to no heading", page, link)
			}
		}
	}
	if checked == 0 {
		t.Error("got no links into the repository")
	}
}

// Every file of this repository that a comment in Go names is there.
func TestFilesNamedInComments(t *testing.T) {
	there := map[string]bool{}
	var sources []string
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		there[d.Name()] = true
		if filepath.Ext(path) == ".go" {
			sources = append(sources, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	comment := regexp.MustCompile(`(?m)(?:^|\s)//.*$`)
	file := regexp.MustCompile(`[\w./-]*\w\.(?:go|md)\b`)
	checked := 0
	for _, source := range sources {
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range comment.FindAllString(string(text), -1) {
			for _, name := range file.FindAllString(line, -1) {
				if folder, _, ok := strings.Cut(name, "/"); ok && !there[folder] {
					continue // another project's
				}
				checked++
				if !there[filepath.Base(name)] {
					t.Errorf("%s: %q names %s, which is not there", source, strings.TrimSpace(line), name)
				}
			}
		}
	}
	if checked == 0 {
		t.Error("got no file named in a comment")
	}
}

// prose returns a page without its blocks of code.
func prose(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(string(text), "")
}

// links returns where the links and images of a page lead.
func links(prose string) []string {
	var to []string
	for _, m := range regexp.MustCompile(`\]\(([^()\s]+)\)`).FindAllStringSubmatch(prose, -1) {
		to = append(to, m[1])
	}
	return to
}

// anchors returns the fragments by which GitHub knows the headings of a page.
func anchors(prose string) []string {
	var all []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(prose, -1) {
		kept := regexp.MustCompile(`[^\p{L}\p{N}_ -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all = append(all, strings.ReplaceAll(kept, " ", "-"))
	}
	return all
}

func TestAnchors(t *testing.T) {
	got := anchors("# Timeouts, end to end\n\ntext # no heading\n\n## `fwatchdog` at work: a_b\n")
	if want := []string{"timeouts-end-to-end", "fwatchdog-at-work-a_b"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
