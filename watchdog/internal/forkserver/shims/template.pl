# The template of the fork server for Perl 5.14 and up; docs/forkserver.md has the protocol.
# It runs in a BEGIN block ahead of the script, which each child goes on to compile and run.
use strict;
no warnings;
require Config;
my ($arch) = $Config::Config{archname} =~ /^([a-z0-9_]+)/;
my %numbers = ( # of the system calls recvmsg and dup3, which Perl has no names for
    x86_64 => [47, 292], i386 => [372, 330], i686 => [372, 330], arm => [297, 358], s390x => [372, 326],
    powerpc64le => [342, 316], (map { $_ => [212, 24] } qw(aarch64 riscv64 loongarch64)),
);
my ($recvmsg, $dup3) = @{$numbers{$arch} || die "no system call numbers for $arch\n"};
open my $watchdog, "+<&=", 3 or die "descriptor 3: $!\n";
my $tell = sub { syswrite $watchdog, $_[0] };
my $ask = sub { $tell->($_[0]); sysread $watchdog, my $answer, 65536 or kill KILL => $$; $answer };
my @same = (stat $0)[0, 1]; # perl has opened the script, but not read it
my ($script) = grep { my @s = stat "/proc/self/fd/$_"; "@s[0, 1]" eq "@same" } 4 .. 99;
my (undef, @preload) = split " ", $ask->("hello 1");

my $load = sub { # loads a module as "use" does
    (my $file = "$_[0].pm") =~ s{::}{/}g;
    require $file;
    $ask->("loaded $_[0]");
};
$load->($_) for @preload;
my $source = do { open my $f, "<", $0 or die "$0: $!\n"; local $/; <$f> };
while ($source =~ /\G(?:\s+|#.*|^=\w(?s:.*?)^=cut.*|package\s[^;]*;|use\s+([^\s;]+)([^;]*);)/gcm) {
    my ($module, $list) = ($1, $2);
    next if !$module || $module =~ /^v?\d/;
    $load->($module);
    # An import that only exports makes tables, which every child would have to make otherwise.
    next unless $module =~ /^(lib|POSIX)$/ || ($module->can("import") || 0) == \&Exporter::import;
    eval "package Forkserver::Preload; use $module $list; 1" or die $@;
}
my @standard = grep { $_ } @Config::Config{qw(privlibexp archlibexp vendorlibexp vendorarchexp sitelibexp sitearchexp)};
for my $file ($0, values %INC) {
    $ask->("file $file") unless grep { index($file, "$_/") == 0 } @standard;
}
{ local $| = 1 } # STDOUT is empty
$tell->("ready");

my ($message, $ancillary) = ("\0" x 256, "\0" x 64);
my @files;
while (1) {
    my $iov = pack "P L!", $message, 256;
    my $header = pack "P I x![L!] P L! P L! i x![L!]", undef, 0, $iov, 1, $ancillary, 64, 0;
    my $n = syscall $recvmsg, 3, $header, 0;
    my $text = substr $message, 0, $n > 0 ? $n : 0;
    if ($text =~ /^reap (\d+)$/) {
        waitpid $1, 0;
        $tell->("reaped $?");
        next;
    }
    kill KILL => $$ if $text ne "fork"; # neither END blocks nor destructors are for the template
    @files = map { open my $file, "+<&=", $_ or die; $file } unpack "x[L!ii] i4", $ancillary;
    my $pid = fork;
    $tell->("failed " . ($! + 0)) unless defined $pid;
    last if defined $pid && $pid == 0;
    @files = ();
}
setpgrp;
$tell->("forked") or kill KILL => $$;
close $watchdog;
open my $again, "<", $0 or die "Can't open perl script \"$0\": $!\n";
syscall $dup3, fileno $again, $script, 02000000; # its offset is shared between children otherwise
syscall $dup3, fileno $files[$_], $_, 0 for 0 .. 2;
my ($directory, $count, @rest) = split /\0/, do { local $/; readline $files[3] }, -1;
chdir $directory if $directory ne "";
@ARGV = splice @rest, 0, $count;
for (@rest) {
    my ($name, $value) = split /=/, $_, 2;
    defined $value ? ($ENV{$name} = $value) : delete $ENV{$name};
}
srand;
($^T, $!) = (time, 0);
