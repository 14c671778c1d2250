"""Runs attempts in a bottle. Reads a JSON list of attempts from standard input, writes a JSON list of what came of each.

An attempt is {"do": NAME, ...arguments}. Its result has the milliseconds it took and either "error" (an errno name or a message) or what
came back. Everything is done by the standard library alone, so that no client's own checks stand between the attempt and the fence.
"""
import base64, ctypes, errno, fcntl, json, os, re, socket, ssl, struct, sys, termios, threading, time, urllib.request

LIBC = ctypes.CDLL(None, use_errno=True)
PATIENCE = 30.0
PROXY = ('127.0.0.1', 9099)


def text(data):
    return data.decode('latin-1')


def receive(stream, limit=8192, patience=PATIENCE):
    stream.settimeout(patience)
    data = b''
    try:
        while len(data) < limit:
            piece = stream.recv(limit - len(data))
            if not piece:
                return data, 'closed'
            data += piece
            if complete(data):
                return data, 'open'
    except socket.timeout:
        return data, 'timeout'
    except OSError as error:
        return data, errno.errorcode.get(error.errno, str(error))
    return data, 'open'


def complete(data):
    """Whether the bytes are one HTTP response with its body, as far as a length says."""
    head, found, body = data.partition(b'\r\n\r\n')
    if not found:
        return False
    length = re.search(rb'(?i)content-length: *(\d+)', head)
    status = re.match(rb'HTTP/1\.[01] (\d+)', head)
    if length:
        return len(body) >= int(length.group(1))
    return bool(status) and (status.group(1) == b'200' and b'chunked' not in head or status.group(1) in (b'204', b'101'))


def open_tcp(address, port):
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    stream = socket.socket(family, socket.SOCK_STREAM)
    stream.settimeout(PATIENCE)
    stream.connect((address, port))
    return stream


def tunnel(target):
    stream = open_tcp(*PROXY)
    head = 'CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n' % (target, target)
    stream.sendall(head.encode('latin-1') if all(ord(c) < 256 for c in head) else head.encode())
    answer, state = receive(stream)
    return stream, text(answer), state


def wrap(stream, name, protocols=None, trust=True):
    context = ssl.create_default_context() if trust else ssl._create_unverified_context()
    context.check_hostname = trust and name is not None
    if protocols:
        context.set_alpn_protocols(protocols)
    stream.settimeout(PATIENCE)
    return context.wrap_socket(stream, server_hostname=name)


def scoped(address, port, scope=1, send=''):
    """A connection to an IPv6 address with a zone, which is the number of an interface."""
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as stream:
        stream.settimeout(PATIENCE)
        stream.connect((address, port, 0, scope))
        return talk(stream, [send] if send else [])


def talk(stream, sends, patience=PATIENCE):
    for piece in sends:
        stream.sendall(piece.encode('latin-1'))
    data, state = receive(stream, patience=patience)
    return {'received': text(data), 'state': state}


def tcp(address, port, send='', patience=PATIENCE):
    with open_tcp(address, port) as stream:
        return talk(stream, [send] if send else [], patience)


def tls(address, port, name=None, send='', protocols=None, trust=True):
    with wrap(open_tcp(address, port), name, protocols, trust) as stream:
        return dict(talk(stream, [send]), protocol=stream.selected_alpn_protocol())


def leaf(address, port, name=None):
    """The names that a server's certificate is for; it must be one of the bottle's own authority."""
    context = ssl.create_default_context()
    context.check_hostname = False
    stream = open_tcp(address, port)
    stream.settimeout(PATIENCE)
    with context.wrap_socket(stream, server_hostname=name) as secure:
        return {'names': [list(item) for item in secure.getpeercert()['subjectAltName']]}


def proxy(send, patience=PATIENCE):
    return tcp(PROXY[0], PROXY[1], send, patience)


def connect(target, send='', name=None, plain=False, protocols=None, trust=True):
    stream, answer, state = tunnel(target)
    with stream:
        if not answer.startswith('HTTP/1.1 200'):
            return {'received': answer, 'state': state}
        if plain:
            return dict(talk(stream, [send]), connected=True)
        with wrap(stream, name, protocols, trust) as secure:
            return dict(talk(secure, [send]), connected=True, protocol=secure.selected_alpn_protocol())


def pipeline(send, target=None, name=None, until=None):
    """Everything that comes back for bytes sent at once, to the proxy or through a tunnel with TLS: until it is closed, or a second after `until` has come."""
    if target is None:
        stream = open_tcp(*PROXY)
    else:
        stream, _, _ = tunnel(target)
        stream = wrap(stream, name)
    with stream:
        stream.sendall(send.encode('latin-1'))
        data = b''
        try:
            while True:
                stream.settimeout(1.0 if until and until.encode() in data else PATIENCE)
                piece = stream.recv(8192)
                if not piece:
                    return {'received': text(data), 'state': 'closed'}
                data += piece
        except socket.timeout:
            return {'received': text(data), 'state': 'open'}
        except OSError as error:
            return {'received': text(data), 'state': errno.errorcode.get(error.errno, str(error))}


def serve(port, name):
    """Leaves a process behind that answers on a port and an abstract socket of this bottle."""
    listening, told = os.pipe()
    if os.fork() == 0:
        os.setsid()
        for descriptor in (0, 1, 2):
            os.close(descriptor)
        tcp_server = socket.create_server(('127.0.0.1', port))
        unix_server = socket.socket(socket.AF_UNIX)
        unix_server.bind('\0' + name)
        unix_server.listen()
        os.write(told, b'x')

        def answer(server):
            while True:
                stream, _ = server.accept()
                stream.sendall(b'REACHED')
                stream.close()
        threading.Thread(target=answer, args=(unix_server,), daemon=True).start()
        answer(tcp_server)
    os.close(told)
    return {'left': os.read(listening, 1) == b'x'}


def get(url, proxied=True, follow=True):
    """What an ordinary program does, with the variables of the bottle."""
    handlers = [] if proxied else [urllib.request.ProxyHandler({})]
    if not follow:
        class Stay(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_):
                return None
        handlers.append(Stay())
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=PATIENCE) as response:
            return {'status': response.status, 'received': text(response.read(8192)), 'url': response.url}
    except urllib.error.HTTPError as error:
        return {'status': error.code, 'received': text(error.read(8192)), 'url': error.url}


TYPES = {'A': 1, 'NULL': 10, 'MX': 15, 'TXT': 16, 'AAAA': 28, 'ANY': 255, 'HTTPS': 65}


def question(name, kind):
    labels = b''.join(bytes([len(part)]) + part for part in name.encode('latin-1').split(b'.') if part)
    return struct.pack('>HHHHHH', 4242, 0x0100, 1, 0, 0, 0) + labels + b'\0' + struct.pack('>HH', TYPES[kind], 1)


def dns(name, kind='A', server='8.8.8.8', stream=False):
    family = socket.AF_INET6 if ':' in server else socket.AF_INET
    packet = question(name, kind)
    with socket.socket(family, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as talker:
        talker.settimeout(PATIENCE)
        talker.connect((server, 53))
        talker.send(struct.pack('>H', len(packet)) + packet if stream else packet)
        data = talker.recv(4096)
    data = data[2:] if stream else data
    flags, _, answers = struct.unpack('>HHH', data[2:8])
    return {'rcode': flags & 15, 'answers': answers}


def names(names, kind='A', server='8.8.8.8'):
    counts = {}
    for name in names:
        result = dns(name, kind, server)
        key = '%d/%s' % (result['rcode'], 'some' if result['answers'] else 'none')
        counts[key] = counts.get(key, 0) + 1
    return {'counts': counts}


def udp(address, port, send='x'):
    family = socket.AF_INET6 if ':' in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as talker:
        talker.settimeout(PATIENCE)
        talker.connect((address, port))
        for _ in range(3):
            talker.send(send.encode('latin-1'))
            time.sleep(0.02)
        try:
            return {'received': text(talker.recv(4096))}
        except socket.timeout:
            return {'state': 'timeout'}


def resolve(name):
    return {'addresses': sorted({item[4][0] for item in socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)})}


def unix(path, abstract=False):
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(PATIENCE)
        stream.connect(('\0' if abstract else '') + path)
        return talk(stream, [])


def new_socket(family, kind, protocol=0):
    socket.socket(family, kind, protocol).close()
    return {'made': True}


def route():
    """Asks the kernel over netlink to delete the route that leads every address to this machine, and to add an address."""
    results = []
    message = struct.pack('=BBBBBBBBI', 2, 0, 0, 0, 255, 3, 254, 2, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as link:
        link.settimeout(PATIENCE)
        for kind, flags, body in ((25, 5, message), (20, 0x605, struct.pack('=BBBBI', 2, 8, 0, 0, 1) + struct.pack('=HH4s', 8, 2, bytes([10, 9, 8, 7])))):
            link.send(struct.pack('=IHHII', 16 + len(body), kind, flags, 1, 0) + body)
            answer = link.recv(4096)
            results.append(errno.errorcode.get(-struct.unpack('=i', answer[16:20])[0], 'OK'))
    return {'results': results}


def syscall(number, arguments=()):
    ctypes.set_errno(0)
    values = [ctypes.c_long(value) if isinstance(value, int) else ctypes.c_char_p(value.encode()) for value in arguments]
    value = LIBC.syscall(ctypes.c_long(number), *values)
    return {'value': value, 'error': errno.errorcode.get(ctypes.get_errno(), '') if value < 0 else None}


def read_all(path, limit=1 << 20):
    with open(path, 'rb') as file:
        return file.read(limit)


def read(path):
    return {'received': text(read_all(path, 4096))}


def write(path, data):
    with open(path, 'w') as file:
        file.write(data)
    return {'written': len(data)}


def find(needles, roots=('/',)):
    """Looks for texts in the environment and command line of every process and in every file that can be read."""
    wanted = [needle.encode() for needle in needles]
    found = []
    looked = 0
    for root in roots:
        for folder, folders, files in os.walk(root):
            if folder.startswith('/sys') or re.match(r'/proc/\d+/(task|root|cwd|map_files|net)', folder):
                folders[:] = []
                continue
            for name in files:
                path = os.path.join(folder, name)
                if name in ('kcore', 'kmsg', 'kpagecount', 'kpageflags', 'kpagecgroup', 'pagemap', 'mem', 'clear_refs', 'trace_pipe', 'attack.py'):
                    continue
                try:
                    mode = os.stat(path).st_mode
                    if (mode & 0o170000) != 0o100000:
                        continue
                    data = read_all(path)
                except OSError:
                    continue
                looked += 1
                found += [path for needle in wanted if needle in data]
    return {'found': found, 'looked': looked}


def processes():
    seen = []
    for name in os.listdir('/proc'):
        if name.isdigit():
            try:
                seen.append(text(read_all('/proc/%s/cmdline' % name)).replace('\0', ' ').strip())
            except OSError:
                pass
    return {'count': len(seen), 'commands': seen}


def terminal(request):
    """Types into the terminal of whoever started this."""
    ctypes.set_errno(0)
    buffer = ctypes.create_string_buffer(b'x' * 32)
    value = LIBC.ioctl(ctypes.c_int(0), ctypes.c_ulong(request), buffer)
    return {'value': value, 'error': errno.errorcode.get(ctypes.get_errno(), '') if value < 0 else None}


def kill(process, number=9):
    os.kill(process, number)
    return {'sent': True}


def linger(seconds=600):
    """A process of its own session, as a daemon is."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for descriptor in (0, 1, 2):
                os.close(descriptor)
            time.sleep(seconds)
        os._exit(0)
    return {'left': True}


def fork_bomb(most=20000):
    children, problem = [], None
    try:
        for _ in range(most):
            child = os.fork()
            if child == 0:
                time.sleep(60)
                os._exit(0)
            children.append(child)
    except OSError as error:
        problem = errno.errorcode.get(error.errno)
    for child in children:
        os.kill(child, 9)
    for child in children:
        os.waitpid(child, 0)
    return {'children': len(children), 'error': problem}


def hog(megabytes):
    """Takes memory in a child, which may be killed for it."""
    child = os.fork()
    if child == 0:
        try:
            data = [bytearray(b'x' * (1 << 20)) for _ in range(megabytes)]
            os._exit(0 if data else 1)
        except MemoryError:
            os._exit(3)
    _, status = os.waitpid(child, 0)
    return {'status': status}


def make(kind, path, target=''):
    if kind == 'link':
        os.symlink(target, path)
    elif kind == 'hard link':
        os.link(target, path)
    elif kind == 'pipe':
        os.mkfifo(path)
    elif kind == 'device':
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 1))
    elif kind == 'directory':
        os.makedirs(path, exist_ok=True)
    elif kind == 'setuid':
        write(path, 'x')
        os.chmod(path, 0o6755)
    return {'made': True}


def swap(path, target, seconds):
    """Leaves a process that makes a directory a link and back, for a time."""
    if os.fork() == 0:
        os.setsid()
        for descriptor in (0, 1, 2):
            os.close(descriptor)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                os.rename(path, path + '.away')
                os.symlink(target, path)
                os.unlink(path)
                os.rename(path + '.away', path)
            except OSError:
                pass
        os._exit(0)
    return {'left': True}


def mode(path):
    status = os.lstat(path)
    return {'mode': status.st_mode, 'uid': status.st_uid}


def fill(path, most):
    written, problem = 0, None
    try:
        with open(path, 'wb', buffering=0) as file:
            while written < most:
                written += file.write(b'\xa5' * (1 << 20))
    except OSError as error:
        problem = errno.errorcode.get(error.errno)
    try:
        os.unlink(path)
    except OSError:
        pass
    return {'written': written, 'error': problem}


def sparse(path, size):
    with open(path, 'wb') as file:
        file.truncate(size)
        file.seek(size - 3)
        file.write(b'end')
    return {'made': True}


def denials(count, target='evil.test:443'):
    """Asks for what is denied over and over on one connection."""
    refused = 0
    with open_tcp(*PROXY) as stream:
        for _ in range(count):
            stream.sendall(('CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n' % (target, target)).encode())
            refused += receive(stream)[0].startswith(b'HTTP/1.1 403')
    return {'refused': refused}


def flood(count, target='allowed.test:443'):
    """Opens many connections to the proxy and leaves them; the last one must still be answered or refused at once."""
    held, refused = [], 0
    for _ in range(count):
        try:
            held.append(open_tcp(*PROXY))
        except OSError:
            refused += 1
    for stream in held:
        stream.close()
    return {'held': len(held), 'refused': refused}


def slow(seconds):
    """A request that never ends its head: how long until it is cut off."""
    with open_tcp(*PROXY) as stream:
        stream.sendall(b'GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n')
        start = time.monotonic()
        while time.monotonic() - start < seconds:
            try:
                stream.sendall(b'X: y\r\n')
                time.sleep(0.5)
                stream.settimeout(0.01)
                data = stream.recv(4096)
                return {'after': time.monotonic() - start, 'received': text(data)}
            except socket.timeout:
                pass
            except OSError as error:
                return {'after': time.monotonic() - start, 'state': errno.errorcode.get(error.errno)}
    return {'after': None}


def endless_head(megabytes):
    with open_tcp(*PROXY) as stream:
        sent = 0
        try:
            stream.sendall(b'GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n')
            while sent < megabytes << 20:
                stream.sendall(b'X: ' + b'y' * 65530 + b'\r\n')
                sent += 65536
        except OSError:
            pass
        data, state = receive(stream)
        return {'sent': sent, 'received': text(data), 'state': state}


def descriptors():
    """What every process that can be looked at has open, this one's own pipes left out."""
    seen = {}
    for name in os.listdir('/proc'):
        if not name.isdigit():
            continue
        try:
            folder = '/proc/%s/fd' % name
            for number in os.listdir(folder):
                try:
                    seen['%s/%s' % (name, number)] = os.readlink('%s/%s' % (folder, number))
                except OSError:
                    pass
        except OSError:
            pass
    return {'descriptors': seen, 'own': str(os.getpid())}


def crash():
    """Ends a process as a fault of memory does, and says whether the kernel kept what it had in memory."""
    child = os.fork()
    if child == 0:
        ctypes.string_at(0)
    _, status = os.waitpid(child, 0)
    import resource
    return {'signal': os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, 'dumped': os.WCOREDUMP(status),
            'limit': resource.getrlimit(resource.RLIMIT_CORE)[1]}


def hoard(most=1000000):
    """Opens sockets until no more can be had."""
    held, problem = [], None
    try:
        for _ in range(most):
            held.append(socket.socket())
    except OSError as error:
        problem = errno.errorcode.get(error.errno)
    for stream in held:
        stream.close()
    return {'held': len(held), 'error': problem}


def environment():
    return {'environment': dict(os.environ), 'user': os.getuid()}


def run(attempt):
    attempt = dict(attempt)
    started = time.monotonic()
    try:
        result = globals()[attempt.pop('do')](**attempt)
    except ssl.SSLError as error:
        result = {'error': 'TLS', 'detail': str(error)}
    except socket.gaierror as error:
        result = {'error': 'NAME', 'detail': str(error)}
    except socket.timeout:
        result = {'error': 'TIMEOUT'}
    except OSError as error:
        inner = getattr(error, 'reason', error)
        code = errno.errorcode.get(getattr(inner, 'errno', None) or 0)
        result = {'error': code or type(inner).__name__, 'detail': str(error)}
    except Exception as error:
        result = {'error': type(error).__name__, 'detail': str(error)}
    result['ms'] = round((time.monotonic() - started) * 1000)
    return result


if __name__ == '__main__':
    attempts = json.load(sys.stdin)
    print(json.dumps([run(attempt) for attempt in attempts]))
