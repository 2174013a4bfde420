// Package docs tests what is written: links lead somewhere.
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
