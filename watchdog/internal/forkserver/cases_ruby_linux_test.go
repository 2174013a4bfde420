package forkserver

import (
	"strings"
	"testing"
)

func TestRuby(t *testing.T) {
	runScenarios(t, "ruby", []scenario{
		{name: "echo", text: "print STDIN.read", stdin: "hello\nthere"},
		{name: "modules", text: "#!/usr/bin/env ruby\n# frozen_string_literal: true\n\nrequire 'json'\nrequire(\"set\")\nrequire_relative 'helper'\nputs JSON.dump([ARGV, Helper::NAME.frozen?, 'x'.frozen?, __LINE__, Set[1].size])", args: []string{"a", "b c", "\u00e4"}, files: map[string]string{"helper.rb": "module Helper\n  NAME = 'n'\nend\n"}},
		{name: "identity", text: "p $0, __FILE__, __FILE__ == $0, $PROGRAM_NAME, __dir__, __method__, self.to_s, ARGV, __LINE__, __ENCODING__, $;, $,, $/, $stdin.lineno, $VERBOSE, $DEBUG\np ARGV.map(&:encoding), ENV['GREETING'].encoding\n[STDIN, STDOUT, STDERR].each { |io| p [io.fileno, io.sync, io.external_encoding, io.internal_encoding, io.inspect, io.tty?, io.binmode?] }\np [$stdin.equal?(STDIN), $stdout.equal?(STDOUT), $stderr.equal?(STDERR), Process.getpgrp == $$, File.umask, local_variables, Thread.list.size]\np Dir.children('/proc/self/fd').sort.map { |fd| [fd, (File.readlink('/proc/self/fd/' + fd)[0, 4] rescue nil)] }.reject { |_, to| to.nil? || to == 'anon' || to == '/pro' }\n", args: []string{"a", ""}},
		{name: "data", text: "print 'x', DATA.read, DATA.lineno\n__END__\none\ntwo\n"},
		{name: "no data", text: "p defined?(DATA)"},
		{name: "long", text: "n = 0\n" + strings.Repeat("n += 1 # a line that makes the script longer than any buffer\n", 2000) + "p n\nraise 'x'"},
		{name: "signals", text: "p Signal.list.keys.sort.map { |s| [s, (trap(s, 'DEFAULT') rescue $!.class)] }\nputs File.readlines('/proc/self/status').grep(/^(Shd)/)"},
		{name: "environment", text: "p ENV.to_a.sort\nSTDOUT.flush\nsystem 'env | sort'\nENV['GREETING'] = 'bye'\nsystem 'echo $GREETING $REMOVED $Http_Query; pwd'", env: []string{"X=\xff", "EMPTY=", "EQ=a=b"}},
		{name: "directory", text: "p Dir.pwd\nDir.chdir('/')\np Dir.pwd", dir: "/tmp"},
		{name: "exit 3", text: "print 'out'\nexit 3"},
		{name: "exit false", text: "exit false"},
		{name: "exit!", text: "print 'lost'\nexit! 7"},
		{name: "abort", text: "print 'out'\nabort 'text'"},
		{name: "exception", text: "def f(n) = 1 / n\ndef g\n  f(0)\nrescue ZeroDivisionError\n  raise ArgumentError, \"two\\nlines\"\nend\nputs 'before'\ng\n"},
		{name: "exception with a hint", text: "puts 'x'\nnil.foo(1)\n"},
		{name: "misspelt", text: "class Foo; end\n[1].frist\n"},
		{name: "exception without text", text: "raise ''"},
		{name: "exception of a class", text: "class E < StandardError; def message; 'own'; end; end\nraise E"},
		{name: "exception in a module", text: "require_relative 'helper'\nHelper.fail", files: map[string]string{"helper.rb": "module Helper\n  def self.fail = raise(KeyError, 'x')\nend\n"}},
		{name: "deep", text: "def f(n) = n.zero? ? raise('deep') : f(n - 1)\nf(50)"},
		{name: "throw", text: "throw :x"},
		{name: "interrupt", text: "puts 'x'\nraise Interrupt"},
		{name: "signal exception", text: "raise SignalException, 'TERM'"},
		{name: "killed", text: "Process.kill(:KILL, $$)\nsleep 5"},
		{name: "terminated", text: "Process.kill(:TERM, $$)\nsleep 5"},
		{name: "syntax error", text: "puts 'x'\ndef f(\n", plain: true},
		{name: "missing feature", text: "require 'no_such_feature'\nputs 'x'", plain: true},
		{name: "missing feature later", text: "puts 'x'\nrequire 'no_such_feature'"},
		{name: "feature fails", text: "require_relative 'helper'", files: map[string]string{"helper.rb": "puts 'loading'\nraise 'x'"}, plain: true},
		{name: "feature exits", text: "require_relative 'helper'", files: map[string]string{"helper.rb": "exit 9"}, plain: true},
		{name: "feature writes", text: "require_relative 'helper'\nputs 'script'", files: map[string]string{"helper.rb": "puts 'import'\nwarn 'import'"}},
		{name: "feature changes environment", text: "require_relative 'helper'\nsystem 'echo $SET; pwd'", files: map[string]string{"helper.rb": "ENV['SET'] = 'by import'\nDir.chdir('/')"}},
		{name: "at_exit", text: "at_exit { puts \"first #{$!.inspect}\" }\nat_exit { puts 'second' }\nputs 'script'\nraise 'x'"},
		{name: "at_exit exits", text: "at_exit { exit 4 }\nraise 'x'"},
		{name: "at_exit raises", text: "at_exit { raise 'y' }\nputs 'x'"},
		{name: "unclosed file", text: "$f = File.open('/dev/stdout', 'w')\n$f.write('late')"},
		{name: "thread", text: "t = Thread.new { sleep 0.05; puts 'thread' }\nputs 'script'\nt.join\nThread.new { sleep }"},
		{name: "thread fails", text: "Thread.new { raise 'in thread' }.join"},
		{name: "closes 0", text: "STDIN.close\nSTDIN.read"},
		{name: "closes 1", text: "STDOUT.close\nputs 'x'"},
		{name: "closes 2", text: "STDERR.close\nputs 'x'\nexit 3"},
		{name: "forks", text: "$stdout.sync = true\nputs 'once'\npid = fork { puts 'child'; exit 3 }\nProcess.wait(pid)\np $?.exitstatus"},
		{name: "runs processes", text: "print `echo $GREETING; exit 5`, $?.exitstatus"},
		{name: "execs", text: "exec 'echo $GREETING; exit 6'"},
		{name: "verbose", options: []string{"-w", "-rset"}, text: "x = 1\nputs 'y'\ndef f; end\ndef f; end\n"},
		{name: "encodings", options: []string{"-E", "ISO-8859-1:UTF-8"}, text: "p STDIN.read, STDIN.external_encoding, STDOUT.external_encoding, Encoding.default_internal", stdin: "\xe4"},
		{name: "empty", text: ""},
	})
}
