package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSettings(t *testing.T) {
	env := map[string]string{"max_body": "1MiB", "workers": "8", "dead_retention": "3600", "log_level": "warn"}
	c, err := parseConfig([]string{"-workers", "9", "-gateway", "http://gateway:8080/base/", "-nats-listen", "none"}, func(k string) string { return env[k] }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if c.maxBody != 1<<20 || c.workers != 9 || c.deadRetention != time.Hour || c.gateway.String() != "http://gateway:8080/base" || c.natsListen != "" || c.logLevel.String() != "WARN" {
		t.Errorf("got %+v", c)
	}
	if c, err = parseConfig(nil, func(string) string { return "" }, io.Discard); err != nil || c.maxBody != 8<<20 || c.nats != "" || !c.callbacks.public || !c.callbacks.gateway {
		t.Errorf("defaults: got %+v, %v", c, err)
	}
}

// All bad settings are reported at once, each by its name.
func TestBadSettings(t *testing.T) {
	for args, want := range map[string][]string{
		"-listen x -gateway ftp://a -workers 1 -poll -1s":                {"-listen", "-gateway", "-workers", "-poll"},
		"-max-body 64MiB -queue-bytes 1KiB":                              {"-max-body", "-queue-bytes"},
		"-stream-replicas 3":                                             {"-stream-replicas: needs -nats"},
		"-nats nats://a -stream-replicas 6":                              {"-stream-replicas"},
		"-nats-cert /dev/null":                                           {"-nats-cert and -nats-key", "need -nats"},
		"-nats-credentials /no/such/file":                                {"-nats-credentials"},
		"-callback-allow everybody -max-age 0 -dead-retention 0 -poll 0": {"-callback-allow", "-max-age", "-dead-retention", "-poll"},
		"-log-level loud -log-format xml -min-free lots":                 {"-log-level", "-log-format", "-min-free"},
		"-no-such start":                                                 {"no-such", "unexpected argument"},
	} {
		_, err := parseConfig(strings.Fields(args), func(string) string { return "" }, io.Discard)
		if err == nil {
			t.Errorf("%s: got no error", args)
			continue
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: got %v, want %s in it", args, err, w)
			}
		}
	}
}

func TestSizes(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "65536": 65536, "64KiB": 65536, "8MiB": 8 << 20, "1GiB": 1 << 30, "": -1, "1MB": -1, "-1": -1, "9999999999GiB": -1, "KiB": -1} {
		got, err := parseSize(s)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: got %d, want %d", s, got, want)
		}
	}
}

func TestProgramArguments(t *testing.T) {
	for _, tt := range []struct {
		args           string
		code           int
		stdout, stderr string
	}{
		{"-version", 0, "faas-async ", ""},
		{"-help", 0, "-max-body", ""},
		{"-workers x", 2, "", "-workers"},
		{"-run-healthcheck -listen 127.0.0.1:1", 1, "", "unhealthy"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), strings.Fields(tt.args), func(string) string { return "" }, &stdout, &stderr, nil)
		if code != tt.code || !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.stderr) {
			t.Errorf("%s: got %d, %s, %s", tt.args, code, &stdout, &stderr)
		}
	}
	if _, err := parseConfig([]string{"-h"}, func(string) string { return "" }, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("got %v, want %v", err, flag.ErrHelp)
	}
}

func TestHealthcheck(t *testing.T) {
	s := startBoth(t, newStandIn(t))
	if code := healthcheck(t.Context(), s.address.String(), io.Discard); code != 0 {
		t.Errorf("got %d, want 0", code)
	}
}

// Every setting is in docs/async.md.
func TestSettingsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "docs", "async.md"))
	if err != nil {
		t.Fatal(err)
	}
	var help bytes.Buffer
	parseConfig([]string{"-help"}, func(string) string { return "" }, &help)
	var missing []string
	for line := range strings.Lines(help.String()) {
		if name, ok := strings.CutPrefix(line, "  -"); ok {
			name = strings.Fields(name)[0]
			if !bytes.Contains(doc, []byte("`-"+name+"`")) {
				missing = append(missing, "-"+name)
			}
		}
	}
	if slices.Sort(missing); len(missing) > 0 {
		t.Errorf("docs/async.md does not have %s", strings.Join(missing, ", "))
	}
}
