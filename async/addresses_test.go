package main

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

func TestIsPublic(t *testing.T) {
	for _, s := range strings.Fields(`
		0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1 172.31.255.255
		192.0.0.1 192.0.2.1 192.168.1.1 198.18.0.1 198.51.100.1 203.0.113.9 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255
		:: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::1
		100::1 2001::1 2001:db8::1 2002:7f00:1:: fc00::1 fd12:3456::1 fe80::1 fec0::1 ff02::1`) {
		if isPublic(netip.MustParseAddr(s)) {
			t.Errorf("%s: got public", s)
		}
	}
	for _, s := range strings.Fields("1.1.1.1 8.8.8.8 172.32.0.1 100.128.0.1 193.0.0.1 2606:4700::1111 2a00:1450::1 ::ffff:8.8.8.8 64:ff9b::808:808") {
		if !isPublic(netip.MustParseAddr(s)) {
			t.Errorf("%s: got not public", s)
		}
	}
}

func TestCallbackRules(t *testing.T) {
	for _, bad := range []string{"private", "10.0.0.0/33", "example.com", ":80", "http://a/"} {
		if _, err := parseCallbackRules(bad); err == nil {
			t.Errorf("%q: got no error", bad)
		}
	}
	r, err := parseCallbackRules("gateway, 10.1.0.0/16, Hooks.example:8443, 127.0.0.1/32")
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]bool{
		"10.1.2.3:80": true, "10.2.0.1:80": false, "127.0.0.1:1": true, "[::ffff:127.0.0.1]:1": true, "127.0.0.2:1": false,
		"8.8.8.8:443": false, "[fe80::1%eth0]:80": false, "unix": false,
	} {
		if got := r.control("tcp", address, nil) == nil; got != want {
			t.Errorf("%s: got %v, want %v", address, got, want)
		}
	}
	if !r.names["hooks.example:8443"] || !r.gateway || r.public {
		t.Errorf("got %+v", r)
	}
}

func TestCallbackToGateway(t *testing.T) {
	c := testConfig(t, "http://Gateway:8080/base/")
	cb := newCallerBack(&c, nil, nil, nil)
	for address, want := range map[string]bool{
		"http://gateway:8080/base/function/next":       true,
		"http://GATEWAY:8080/base/async-function/next": true,
		"http://gateway:8080/base/system/functions":    false,
		"http://gateway:8080/base/function/../system/": true, // gateways see no .. in a path, this is a function's
		"http://gateway:8080/":                         false,
		"http://gateway:8080/base/%66unction/x":        false,
		"http://elsewhere/system/functions":            true,
	} {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		if got := cb.allowed(u); got != want {
			t.Errorf("%s: got %v, want %v", address, got, want)
		}
	}
	if !cb.trusts("gateway:8080") || cb.trusts("gateway:80") || cb.trusts("other:8080") {
		t.Error("the gateway alone is to be trusted")
	}
}
