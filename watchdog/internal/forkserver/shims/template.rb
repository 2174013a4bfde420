# The template of the fork server for Ruby 3.0 and up; docs/forkserver.md has the protocol.
require "socket"
watchdog = Socket.for_fd(3)
ask = lambda do |text|
  watchdog.send(text, 0)
  answer = watchdog.recv(65_536)
  answer.empty? ? exit!(0) : answer
end
_, *preload = ask["hello 1"].split
$0 = script = ARGV.shift

load = lambda do |feature|
  require feature
  ask["loaded #{feature}"]
end
preload.each(&load)
lines = File.readlines(script, encoding: "BINARY")
lines.each do |line| # what it requires first of all
  next if line =~ /\A\s*(#.*)?\Z/
  break unless line =~ /\A(require|require_relative)[ (]\s*["']([^"'#]+)["']\)?\s*\Z/
  load[$1 == "require" ? $2 : File.expand_path($2, File.dirname(File.realpath(script)))]
end
code = RubyVM::InstructionSequence.compile_file(script)
ended = lines.index { |line| line =~ /\A__END__\r?\n?\z/ }
data = ended && lines[0..ended].sum(&:bytesize)
library = RbConfig::CONFIG.values_at("rubylibdir", "rubyarchdir", "sitedir", "vendordir") + Gem.path
[script, *$LOADED_FEATURES].each do |file|
  ask["file #{file}"] if File.file?(file) && library.none? { |directory| file.start_with?("#{directory}/") }
end
STDOUT.flush
Process.respond_to?(:warmup) ? Process.warmup : GC.start
watchdog.send("ready", 0)

files = loop do
  message, _, _, *attached = watchdog.recvmsg(256, 0, 64, scm_rights: true)
  case message
  when /\Areap (\d+)\z/
    watchdog.send("reaped #{Process.wait2($1.to_i)[1].to_i}", 0)
  when "fork"
    received = attached.flat_map(&:unix_rights)
    begin
      break received unless fork
    rescue SystemCallError => error
      watchdog.send("failed #{error.errno}", 0)
    end
    received.each(&:close)
  else
    exit!(0)
  end
end
Process.setpgid(0, 0)
watchdog.send("forked", 0)
watchdog.close
[STDIN, STDOUT, STDERR].zip(files) do |stream, file|
  encodings, sync = [stream.external_encoding, stream.internal_encoding], stream.sync
  stream.reopen(file)
  stream.set_encoding(*encodings)
  stream.sync = sync
end
directory, count, *rest = files[3].binmode.read.split("\0", -1)
files.each(&:close)
Dir.chdir(directory) unless directory.empty?
ARGV.replace(rest.shift(count.to_i).each { |argument| argument.force_encoding(Encoding.find("locale")) })
rest.each do |variable|
  name, given, value = variable.partition("=")
  given.empty? ? ENV.delete(name) : ENV[name] = value
end
if ended
  DATA = File.open(script)
  DATA.seek(data)
  DATA.lineno = ended + 1
end
at_exit do # runs last; what is printed of an exception after it leaves out this text
  $stderr = Class.new do
    def write(*words) = IO.for_fd(2, "w", autoclose: false).syswrite(words.join.gsub(/^\s+from (-e|forkserver):\d+:in .*\n/, ""))
  end.new if $stderr.equal?(STDERR)
end
code.eval
