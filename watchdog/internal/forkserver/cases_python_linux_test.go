package forkserver

import "testing"

func TestPython(t *testing.T) {
	runScenarios(t, "python", []scenario{
		{name: "echo", text: "import sys\nsys.stdout.write(sys.stdin.read())", stdin: "hello\nthere"},
		{name: "json", text: "import json, re, hashlib, datetime, urllib.request, sys\nprint(json.dumps(sys.argv[1:]))", args: []string{"a", "", "b c", "ü\xff"}},
		{name: "no input", text: "import sys\nprint(repr(sys.stdin.buffer.read()))"},
		{name: "lines", text: "try:\n  while True: print(input('? '))\nexcept EOFError: print('end')", stdin: "one\ntwo"},
		{name: "identity", text: `
import sys, os
names = {k: v for k, v in globals().items() if k not in ('__loader__', '__builtins__')}
print(sorted(names), names['__name__'], __file__, __doc__, __spec__, type(__loader__), __loader__.path, __builtins__)
print(sys.argv, sys.path, sys.flags, sys.executable, sys.prefix, getattr(sys, 'orig_argv', None))
print(sys.modules['__main__'].__dict__ is globals(), sys._getframe().f_code.co_filename, os.getcwd())
for f in sys.stdin, sys.stdout, sys.stderr:
    print(f.name, f.mode, f.encoding, f.errors, f.line_buffering, f.write_through, f.isatty(), f.seekable(), f.fileno(), f is sys.__dict__['__%s__' % f.name[1:-1]])
print(os.getpgrp() == os.getpid(), os.getpriority(os.PRIO_PROCESS, 0), oct(os.umask(0)))
print([(fd, os.readlink('/proc/self/fd/' + fd)[:4]) for fd in sorted(os.listdir('/proc/self/fd')) if os.path.exists('/proc/self/fd/' + fd)])
`, args: []string{"x"}},
		{name: "signals", text: "import signal\nfor n in sorted(signal.Signals): print(n, signal.getsignal(n))\nprint(signal.pthread_sigmask(0, []))\nprint([l for l in open('/proc/self/status') if l.startswith('Sig') or l.startswith('Shd')][1:])"},
		{name: "limits", text: "import resource\nfor n in sorted(dir(resource)):\n  if n.startswith('RLIMIT'): print(n, resource.getrlimit(getattr(resource, n)))"},
		{name: "environment", text: "import os, subprocess, sys\nprint(sorted(os.environ.items()), sorted(os.environb.items()), os.getenv('REMOVED'))\nsys.stdout.flush()\nsubprocess.run('env | sort', shell=True)\nos.environ['GREETING'] = 'bye'\nos.system('echo $GREETING $REMOVED $Http_Query; cd /; pwd')", env: []string{"X=\xff", "EMPTY=", "EQ=a=b", "GREETING=hi"}},
		{name: "directory", text: "import os\nprint(os.getcwd()); os.chdir('/'); print(os.getcwd())", dir: "/tmp"},
		{name: "exit 0", text: "import sys\nsys.exit(0)"},
		{name: "exit none", text: "import sys\nsys.exit()"},
		{name: "exit 3", text: "import sys\nprint('out'); sys.exit(3)"},
		{name: "exit 256", text: "import sys\nsys.exit(256)"},
		{name: "exit -1", text: "import sys\nsys.exit(-1)"},
		{name: "exit true", text: "import sys\nsys.exit(True)"},
		{name: "exit huge", text: "import sys\nsys.exit(2**70)"},
		{name: "exit text", text: "import sys\nprint('out'); sys.exit('text')"},
		{name: "exit in thread", text: "import sys, threading\nt = threading.Thread(target=lambda: sys.exit(4)); t.start(); t.join(); print('on')"},
		{name: "_exit", text: "import os\nprint('lost', end=''); os._exit(7)"},
		{name: "killed", text: "import os, signal\nprint('x', flush=True); os.kill(os.getpid(), signal.SIGKILL)"},
		{name: "terminated", text: "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)"},
		{name: "pipe signal", text: "import os, signal\nos.kill(os.getpid(), signal.SIGPIPE); print('ignored')"},
		{name: "abort", text: "import os, resource\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.abort()"},
		{name: "exception", text: "def f(n):\n    return 1 // n\n\ndef g():\n    try:\n        f(0)\n    except ZeroDivisionError as e:\n        raise ValueError('two', \"it's\") from e\n\nprint('before')\ng()\n"},
		{name: "exception in a module", text: "import helper\nhelper.fail()", files: map[string]string{"helper.py": "def fail():\n    raise KeyError('x')\n"}},
		{name: "exception group of notes", text: "class E(Exception):\n    def __str__(self): return 'multi\\nline'\nraise E()"},
		{name: "interrupt", text: "print('x')\nraise KeyboardInterrupt"},
		{name: "interrupt signal", text: "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nprint('no')"},
		{name: "generator exit", text: "raise GeneratorExit('g')"},
		{name: "excepthook", text: "import sys\nsys.excepthook = lambda *a: print('hook', a[0], a[1], a[2].tb_lineno, a[2].tb_next)\nraise ValueError(1)"},
		{name: "excepthook and exit", text: "import sys\ndef hook(*a): print('hook'); sys.exit(5)\nsys.excepthook = hook\nraise ValueError(1)"},
		{name: "syntax error", text: "import sys\ndef f(:\n  pass\n", plain: true},
		{name: "not utf-8", text: "import sys\nx = '\xff'\n", plain: true},
		{name: "missing import", text: "import sys\nimport no_such_module\n", plain: true},
		{name: "missing import later", text: "import sys\nprint('x')\nimport no_such_module\n"},
		{name: "optional import", text: "try:\n    import no_such_module as j\nexcept ImportError:\n    import json as j\nprint(j.dumps([1]))"},
		{name: "import fails", text: "import helper\n", files: map[string]string{"helper.py": "import sys\nprint('loading')\nraise RuntimeError('x')\n"}, plain: true},
		{name: "import exits", text: "import helper\n", files: map[string]string{"helper.py": "import sys\nsys.exit(9)\n"}, plain: true},
		{name: "import _exits", text: "import helper\n", files: map[string]string{"helper.py": "import os\nos._exit(9)\n"}, plain: true},
		{name: "import reads stdin", text: "import helper\nprint(helper.x)", stdin: "hello", files: map[string]string{"helper.py": "import sys\nx = sys.stdin.read()\n"}, plain: true},
		{name: "import writes", text: "import helper, sys\nprint('script'); print('script', file=sys.stderr)", files: map[string]string{"helper.py": "import sys\nprint('import')\nprint('import', file=sys.stderr)\n"}},
		{name: "import writes at once", text: "import helper\nprint('script')", files: map[string]string{"helper.py": "import sys, os\nprint('import', flush=True)\nos.write(2, b'err')\n"}},
		{name: "import writes a lot", text: "import helper\nprint('script')", files: map[string]string{"helper.py": "print('x' * 100000)\n"}, plain: true},
		{name: "import changes environment", text: "import helper, os\nprint(os.environ['SET'], os.getcwd(), 'GREETING' in os.environ)\nos.system('echo $SET')", files: map[string]string{"helper.py": "import os\nos.environ['SET'] = 'by import'\nos.chdir('/')\ndel os.environ['GREETING']\n"}},
		{name: "import looks at main", text: "import helper\nprint(helper.name, helper.argv)", args: []string{"q"}, files: map[string]string{"helper.py": "import __main__ as main, sys\nname = main.__file__\nargv = list(sys.argv)\n"}},
		{name: "warning at compile", text: "import sys\nx = 1\nif x is 1: print('is')\n"},
		{name: "warning", text: "import warnings\nwarnings.warn('careful')\nwarnings.warn('old', DeprecationWarning)"},
	})
}

func TestPythonEnds(t *testing.T) {
	runScenarios(t, "python", []scenario{
		{name: "atexit", text: "import atexit\natexit.register(print, 'first'); atexit.register(print, 'second')\nprint('script')"},
		{name: "atexit fails", text: "import atexit\ndef f(): raise ValueError('x')\natexit.register(f); atexit.register(print, 'second')\nprint('script')"},
		{name: "atexit exits", text: "import atexit, sys\ndef f(): sys.exit(4)\natexit.register(f)\nprint('script')"},
		{name: "atexit after an exception", text: "import atexit\natexit.register(print, 'end')\nraise ValueError"},
		{name: "destructor", text: "class C:\n    def __init__(self, n): self.n = n\n    def __del__(self): print('gone', self.n, helper())\ndef helper(): return 'help'\na = C(1)\n_b = C(2)\nc = [C(3)]\nc.append(c)\n"},
		{name: "unclosed file", text: "import sys\nf = open(sys.argv[1], 'w')\nf.write('x' * 10)\ndef g(): return f\n", args: []string{"/dev/stdout"}},
		{name: "unclosed file in a module", text: "import helper\nhelper.f = open('/dev/stdout', 'w')\nhelper.f.write('late')\n", files: map[string]string{"helper.py": ""}},
		{name: "thread at the end", text: "import threading, time\ndef f():\n    time.sleep(0.05)\n    print('thread')\nthreading.Thread(target=f).start()\nprint('script')"},
		{name: "daemon thread", text: "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\nprint('script')"},
		{name: "pool", text: "from concurrent.futures import ThreadPoolExecutor\np = ThreadPoolExecutor(2)\nprint(list(p.map(str, range(3))))"},
		{name: "closes 0", text: "import os, sys\nos.close(0)\ntry:\n    sys.stdin.read()\nexcept OSError as e:\n    print(e)"},
		{name: "closes 1", text: "import os\nos.close(1)\nprint('x')"},
		{name: "closes 1 and writes nothing", text: "import os\nos.close(1)"},
		{name: "closes 2", text: "import os, sys\nos.close(2)\nprint('x')\nsys.exit('y')"},
		{name: "closes all", text: "import os\nos.closerange(0, 3)"},
		{name: "closes sys.stdout", text: "import sys\nprint('x'); sys.stdout.close()"},
		{name: "no sys.stdout", text: "import sys\nsys.stdout.write('x'); sys.stdout = None"},
		{name: "own sys.stdout", text: "import sys\nclass W:\n    def write(self, s): sys.__stdout__.write(s.upper())\n    def flush(self): pass\nsys.stdout = W()\nprint('x')"},
		{name: "reopened", text: "import os, sys\nr, w = os.pipe()\nos.dup2(2, 1)\nprint('to stderr')"},
		{name: "forks", text: "import os, sys\nprint('once')\nsys.stdout.flush()\npid = os.fork()\nprint('child' if pid == 0 else 'parent')\nif pid: print(os.waitpid(pid, 0)[1])\nelse: sys.exit(3)"},
		{name: "forks unflushed", text: "import os, sys\nprint('twice')\nif os.fork() == 0: sys.exit(0)\nos.wait()"},
		{name: "runs processes", text: "import subprocess\nprint(subprocess.run(['sh', '-c', 'cat; echo err >&2; exit 5'], input=b'in', capture_output=True))"},
		{name: "multiprocessing", text: "import multiprocessing\ndef f(x): return x * x\nif __name__ == '__main__':\n    with multiprocessing.get_context('fork').Pool(2) as p: print(p.map(f, [1, 2, 3]))"},
		{name: "pickle", text: "import pickle\nclass C: pass\nprint(type(pickle.loads(pickle.dumps(C()))) is C, C.__module__)"},
		{name: "execs", text: "import os\nos.execvp('sh', ['sh', '-c', 'echo $GREETING; exit 6'])"},
		{name: "unbuffered", options: []string{"-u"}, text: "import os\nprint('x'); os._exit(0)"},
		{name: "optimised", options: []string{"-OO"}, text: "'doc'\nassert False\nprint(__doc__, __debug__)"},
		{name: "isolated", options: []string{"-I", "-X", "utf8", "-Wignore"}, text: "import sys, warnings\nwarnings.warn('x')\nprint(sys.path, sys.flags)"},
		{name: "error for warning", options: []string{"-W", "error"}, text: "import warnings\nwarnings.warn('x')"},
		{name: "coding", text: "# -*- coding: latin-1 -*-\nprint('\xe4')"},
		{name: "byte order mark", text: "\xef\xbb\xbfimport sys\nprint('bom')"},
		{name: "line ends", text: "import sys\r\nprint('''a\r\nb''')\r\n"},
		{name: "future", text: "'''doc'''\nfrom __future__ import annotations\nimport sys\ndef f(x: nowhere): pass\nprint(f.__annotations__, __doc__)"},
		{name: "no future", text: "def f(x: int): pass\nprint(f.__annotations__)"},
		{name: "empty", text: ""},
		{name: "constants first", text: "import sys\nDEBUG = False\nNAMES = ['a', 'b']\nif DEBUG:\n    import pdb\nif sys.version_info >= (3, 0):\n    import json\nprint(json.dumps(NAMES))"},
		{name: "variables first", text: "import os\nquery = os.environ['Http_Query']\nimport json\nprint(json.dumps(query))"},
		{name: "path first", text: "import sys\nsys.path.insert(0, '/nowhere')\nimport json\nprint(sys.path[0])"},
		{name: "logging", text: "import logging, sys\nlogging.basicConfig(level=logging.INFO)\nlogging.info('x'); logging.getLogger('a').error('y')"},
		{name: "numbers", text: "import decimal, fractions\nprint(decimal.getcontext().prec, fractions.Fraction(1, 3))"},
	})
}
