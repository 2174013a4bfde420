package main

// The other proxies, each set up for what is measured: kept-alive connections
// to one upstream, bodies streamed, no log of requests.

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

const nginxSettings = `daemon off;
worker_processes auto;
worker_rlimit_nofile 20000;
pid %[1]s/nginx.pid;
error_log %[1]s/nginx.log;
events { worker_connections 16000; }
http {
	access_log off;
	client_body_temp_path %[1]s/nginx-body;
	proxy_temp_path %[1]s/nginx-proxy;
	fastcgi_temp_path %[1]s/nginx-fastcgi;
	uwsgi_temp_path %[1]s/nginx-uwsgi;
	scgi_temp_path %[1]s/nginx-scgi;
	client_max_body_size 0;
	keepalive_requests 1000000000;
	keepalive_timeout 600s;
	upstream bench { server %[3]s; keepalive 1024; keepalive_requests 1000000000; }
	server {
		listen %[2]s backlog=4096;
		location / {
			proxy_pass http://bench;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_request_buffering off;
			proxy_max_temp_file_size 0;
		}
	}
}
`

const haproxySettings = `global
	no strict-limits
	maxconn 16000
defaults
	mode http
	timeout connect 5s
	timeout client 600s
	timeout server 60s
	timeout http-keep-alive 600s
	http-reuse always
frontend in
	bind %s
	default_backend out
backend out
	server bench %s
`

const caddySettings = `{
	admin %[2]s
	auto_https off
	persist_config off
	log {
		level ERROR
	}
}
http://%[1]s {
	reverse_proxy %[3]s {
		transport http {
			keepalive_idle_conns_per_host 1024
			compression off
		}
	}
}
`

// others starts those of the other proxies that this machine has.
func (b *bench) others(upstream string) ([]*contestant, error) {
	var all []*contestant
	for _, start := range []func(string) (*contestant, error){b.nginx, b.haproxy, b.startCaddy} {
		c, err := start(upstream)
		if err != nil {
			return nil, err
		}
		if c != nil {
			all = append(all, c)
		}
	}
	return all, nil
}

func (b *bench) nginx(upstream string) (*contestant, error) {
	path, err := exec.LookPath("nginx")
	if err != nil {
		return nil, nil
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	settings, err := b.settings("nginx.conf", nginxSettings, b.dir, addr, upstream)
	if err != nil {
		return nil, err
	}
	c, err := b.start("nginx", addr, nil, "", path, "-c", settings, "-e", filepath.Join(b.dir, "nginx.log"))
	if err != nil {
		return nil, err
	}
	// The master does nothing but start the workers.
	c.more, err = childrenOf(c.cmd.Process.Pid)
	return c, err
}

func (b *bench) haproxy(upstream string) (*contestant, error) {
	path, err := exec.LookPath("haproxy")
	if err != nil {
		return nil, nil
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	settings, err := b.settings("haproxy.cfg", haproxySettings, addr, upstream)
	if err != nil {
		return nil, err
	}
	return b.start("HAProxy", addr, nil, "", path, "-db", "-f", settings)
}

func (b *bench) startCaddy(upstream string) (*contestant, error) {
	if b.caddy == "" {
		return nil, nil
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	admin, err := freeAddr()
	if err != nil {
		return nil, err
	}
	settings, err := b.settings("Caddyfile", caddySettings, addr, admin, upstream)
	if err != nil {
		return nil, err
	}
	env := []string{"HOME=" + b.dir, "XDG_DATA_HOME=" + b.dir, "XDG_CONFIG_HOME=" + b.dir}
	c, err := b.start("Caddy", addr, env, "", b.caddy, "run", "--adapter", "caddyfile", "--config", settings)
	if err != nil {
		return nil, err
	}
	c.mallocs = func() (float64, error) { return mallocsOfVars("http://" + admin + "/debug/vars") }
	return c, nil
}

// settings writes a file of settings and returns its path.
func (b *bench) settings(name, format string, values ...any) (string, error) {
	path := filepath.Join(b.dir, name)
	return path, os.WriteFile(path, fmt.Appendf(nil, format, values...), 0o600)
}

// childrenOf returns the processes that pid has started.
func childrenOf(pid int) ([]int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		return nil, err
	}
	var children []int
	for field := range strings.FieldsSeq(string(text)) {
		child, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		children = append(children, child)
	}
	return children, nil
}
