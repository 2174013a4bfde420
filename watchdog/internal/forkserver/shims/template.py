# The template of the fork server for Python 3.8 and up; docs/forkserver.md has the protocol.
import _ast, _frozen_importlib_external as loaders, _io, _socket, array, atexit, gc, os, sys
watchdog = _socket.socket(fileno=3)

def ask(text):
    watchdog.send(os.fsencode(text))
    return os.fsdecode(watchdog.recv(65536)) or os._exit(0)

def quiet(node):  # calls and defines nothing, and looks at nothing that may differ between requests
    kinds = (_ast.Import, _ast.ImportFrom, _ast.Try, _ast.If, _ast.Pass, _ast.Assign, _ast.Expr)
    if isinstance(node, (_ast.stmt, _ast.Call, _ast.Subscript)) and not isinstance(node, kinds):
        return isinstance(getattr(node, "ctx", None), _ast.Store)
    parts = [getattr(node, name, None) for name in node._fields]
    return all(quiet(n) for p in parts for n in (p if isinstance(p, list) else [p]) if isinstance(n, _ast.AST))

def load(source):  # runs the quiet statements that the source begins with: its imports
    tree = compile(source, path, "exec", 0x400, dont_inherit=True)  # as ast.parse does
    for node in tree.body:
        if not quiet(node): break
        exec(compile(_ast.Module([node], []), path, "exec", dont_inherit=True), scratch)
        ask("loaded " + " ".join(source.decode(errors="replace").split("\n")[node.lineno - 1:node.end_lineno])[:200])
    return compile(tree, path, "exec", dont_inherit=True)

preload = ask("hello 1").split()[1:]
del getattr(sys, "orig_argv", [])[-1 - len(sys.argv):1 - len(sys.argv)], sys.argv[0]  # "-c", its text
path = os.path.join(os.getcwd(), sys.argv[0]) if sys.version_info >= (3, 9) else sys.argv[0]
globals().update(__file__=path, __cached__=None, __loader__=loaders.SourceFileLoader("__main__", path))
if sys.path[:1] == [""]: sys.path[0] = os.path.dirname(os.path.realpath(path))
scratch = {"__name__": "__main__", "__file__": path}
load("".join("import %s\n" % name for name in preload).encode())
code = load(__loader__.get_data(path))
for file in {str(getattr(m, "__file__", None) or os.__file__) for m in list(sys.modules.values())}:
    if not file.startswith(os.path.dirname(os.__file__)) and "-packages" not in file:
        ask("file " + file)
gc.freeze()  # and make a module for the script that is not frozen, so that it can be collected at the end
main = sys.modules["__main__"] = type(sys)("__main__")
main.__dict__.update((k, v) for k, v in globals().items() if k[:2] == "__")
watchdog.send(b"ready")
while True:
    message, attached, _, _ = watchdog.recvmsg(256, _socket.CMSG_SPACE(16))
    if message[:5] == b"reap ":
        watchdog.send(b"reaped %d" % os.waitpid(int(message[5:]), 0)[1])
        continue
    files = array.array("i", attached[0][2] if message == b"fork" else os._exit(0))
    try:
        if os.fork() == 0:
            break
    except OSError as error:
        watchdog.send(b"failed %d" % error.errno)
    for fd in files: os.close(fd)
os.setpgid(0, 0)
watchdog.send(b"forked")
watchdog.close()
directory, count, *rest = b"".join(iter(lambda: os.read(files[3], 65536), b"")).split(b"\0")
for n in range(3): os.dup2(files[n], n)
for fd in files: os.close(fd)
if directory: os.chdir(directory)
sys.argv[1:] = map(os.fsdecode, rest[:int(count)])
for name, given, value in (variable.partition(b"=") for variable in rest[int(count):]):
    os.environb.__setitem__(name, value) if given else os.environb.pop(name, None)
getattr(sys.modules.get("numpy.random"), "seed", int)()  # module random sees to itself
try:
    status = exec(code, main.__dict__)
except BaseException as error:
    show, trace = sys.excepthook, error.__traceback__.tb_next  # without the frame of this text
    sys.excepthook = lambda kind, error, _: show(kind, error.with_traceback(trace), trace)
    if not isinstance(error, SystemExit) or type(error.code) not in (int, type(None)): raise
    status = error.code
try:  # to end as the interpreter does, without taking apart all that the template has loaded
    getattr(sys.modules.get("threading"), "_shutdown", int)(), atexit._run_exitfuncs()
    mortal = [o for o in gc.get_objects() if hasattr(type(o), "__del__")]  # files have that, too
    for file in [sys.stdout, sys.stderr] + [o for o in mortal if issubclass(type(o), _io._IOBase)]:
        file.closed or file.flush()
    if mortal:
        del sys.modules["__main__"], main, mortal, file
        gc.collect(), sys.stdout.flush(), sys.stderr.flush()
    os._exit(status or 0)
except BaseException:
    sys.exit(status)  # and let the interpreter say what is wrong
