package forkserver

import (
	"strings"
	"testing"
)

func TestPerl(t *testing.T) {
	runScenarios(t, "perl", []scenario{
		{name: "echo", text: "print while <STDIN>;", stdin: "hello\nthere"},
		{name: "modules", text: "#!/usr/bin/perl -w\nuse strict;\nuse warnings;\nuse 5.010;\nuse POSIX qw(floor);\nuse JSON::PP;\nuse List::Util 'sum';\n\n=head1 NAME\n\nuse Not::A::Module;\n\n=cut\n\nsay JSON::PP->new->canonical->encode({a => floor(sum(1.5, 2))}), __LINE__;", args: []string{"a"}},
		{name: "identity", text: "#!/usr/bin/perl\nuse strict;\nprint join('|', $0, @ARGV, __FILE__, __LINE__, (caller() ? 'called' : 'main'), __PACKAGE__, $^W, $^X, $/, defined $\\ ? 1 : 0, $@, $! + 0, $.), \"\\n\";\nprint \"$_ $INC[$_]\\n\" for 0 .. $#INC;\nprint getpgrp() == $$ ? 'leader' : 'member', ' ', umask, ' ', time - $^T < 60 ? 'now' : 'then', \"\\n\";\nopendir my $d, '/proc/self/fd'; print join(',', map { $_ . '=' . substr(readlink(\"/proc/self/fd/$_\"), 0, 4) } sort grep { /\\d/ } readdir $d), \"\\n\";\n", args: []string{"a", "", "b c", "\xff"}},
		{name: "data", text: "print 'x', <DATA>;\n__DATA__\none\ntwo\n"},
		{name: "long", text: "my $n = 0;\n" + strings.Repeat("$n += 1; # a line that makes the script longer than any buffer\n", 2000) + "print \"$n\\n\"; die;\n__END__\n"},
		{name: "signals", text: "for (sort keys %SIG) { print \"$_ \", $SIG{$_} // 'none', \"\\n\" }\nopen my $f, '<', '/proc/self/status'; print grep { /^(Sig[BIC]|Shd)/ } <$f>;"},
		{name: "environment", text: "print map { \"$_=$ENV{$_}\\n\" } sort keys %ENV; $| = 1; print ''; system 'env | sort'; $ENV{GREETING} = 'bye'; system 'echo $GREETING $REMOVED $Http_Query; pwd'", env: []string{"X=\xff", "EMPTY=", "EQ=a=b"}},
		{name: "directory", text: "system 'pwd'; chdir '/'; system 'pwd'", dir: "/tmp"},
		{name: "exit 3", text: "print 'out'; exit 3"},
		{name: "exit 256", text: "exit 256"},
		{name: "exit -1", text: "exit -1"},
		{name: "die", text: "print 'out'; die 'text'"},
		{name: "die with errno", text: "open my $f, '<', '/no/such/file' or die \"open: $!\""},
		{name: "die with an object", text: "package E; use overload '\"\"' => sub { 'object' }; package main; die bless {}, 'E'"},
		{name: "die in a module", text: "use lib $ENV{HELPERS} || '.';\nuse FindBin;\nuse lib \"$FindBin::Bin\";\nuse Helper;\nHelper::fail()", files: map[string]string{"Helper.pm": "package Helper;\nsub fail { die 'helper' }\n1;\n"}},
		{name: "die in eval", text: "eval { die \"x\\n\" }; print \"caught $@\"; warn 'careful'"},
		{name: "killed", text: "$| = 1; print 'x'; kill KILL => $$"},
		{name: "terminated", text: "kill TERM => $$; sleep 5"},
		{name: "pipe signal", text: "kill PIPE => $$; print 'ignored'"},
		{name: "syntax error", text: "use strict;\nmy $x = ;\nprint 'x'"},
		{name: "not declared", text: "use strict;\n$x = 1;\n"},
		{name: "missing module", text: "use No::Such::Module;\nprint 'x'", plain: true},
		{name: "missing module later", text: "print 'x';\nrequire No::Such::Module;"},
		{name: "module fails", text: "use FindBin;\nuse lib $FindBin::Bin;\nuse Helper;\n", files: map[string]string{"Helper.pm": "die 'loading'"}, plain: true},
		{name: "module exits", text: "use FindBin;\nuse lib $FindBin::Bin;\nuse Helper;\n", files: map[string]string{"Helper.pm": "exit 9"}, plain: true},
		{name: "module writes", text: "use FindBin;\nuse lib $FindBin::Bin;\nuse Helper;\nprint 'script'", files: map[string]string{"Helper.pm": "print \"import\\n\"; warn 'import'; 1"}},
		{name: "module changes environment", text: "use FindBin;\nuse lib $FindBin::Bin;\nuse Helper;\nsystem 'echo $SET; pwd'", files: map[string]string{"Helper.pm": "$ENV{SET} = 'by import'; chdir '/'; 1"}},
		{name: "begin", text: "BEGIN { print \"begin $ENV{Http_Query}\\n\" }\nprint 'script'"},
		{name: "ends", text: "END { print \"end $?\\n\"; $? = 7 }\npackage C; sub DESTROY { print \"gone\\n\" } package main;\nour $c = bless [], 'C'; my $d = bless [], 'C';\nexit 3"},
		{name: "closes 0", text: "close STDIN; my $x = <STDIN>; print defined $x ? 1 : 0"},
		{name: "closes 1", text: "use POSIX (); POSIX::close(1); print 'x'"},
		{name: "closes 2", text: "close STDERR; print 'x'; die 'y'"},
		{name: "forks", text: "$| = 1; print 'once '; my $p = fork; if (!$p) { print \"child\\n\"; exit 3 } waitpid $p, 0; print \"parent $?\\n\""},
		{name: "runs processes", text: "print `echo \\$GREETING; exit 5`, $? >> 8, \"\\n\""},
		{name: "execs", text: "exec 'echo $GREETING; exit 6'"},
		{name: "_exit", text: "use POSIX (); print 'lost'; POSIX::_exit(7)"},
		{name: "warnings", options: []string{"-w"}, text: "my $x; print \"x$x\""},
		{name: "layers", options: []string{"-CS"}, text: "print chr(228), length(<STDIN>), join ',', PerlIO::get_layers(STDOUT)", stdin: "\u00e4\n"},
		{name: "loop", options: []string{"-nl"}, text: "print \"[$_]\"; END { print $. }", stdin: "a\nb\n"},
		{name: "include", options: []string{"-I", "/nowhere", "-Mstrict"}, text: "print $INC[0]; print defined $main::{x}"},
		{name: "empty", text: ""},
	})
}
