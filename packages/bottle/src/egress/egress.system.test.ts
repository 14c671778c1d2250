import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';

import { MIB } from '@decant/core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { Internet, route } from '../testing/internet.ts';

const usable = process.platform === 'linux' && process.getuid?.() === 0;

const ROUTES = [
  route('api', 'api.example.com', { ports: [443, 80, 8080, 8081] }),
  route('six', 'six.example.com'),
  route('pinned', 'pinned.example.com', { ports: [8443], protocol: 'tls' }),
  route('greeting', 'api.example.com', { ports: [2222], protocol: 'tcp' }),
  route('untrusted', 'untrusted.example.com'),
  route('mixed', 'mixed.example.com'),
  route('dead', 'dead.example.com'),
  route('private', 'private.example.com', { privateRanges: ['10.9.8.0/24'] }),
  route('unlisted', 'unlisted.example.com'),
];

const CURL = ['curl', '--silent', '--show-error', '--max-time', '10'];
const json = (stdout: Buffer) =>
  JSON.parse(stdout.toString('utf8')) as {
    method: string;
    url: string;
    headers: Record<string, string>;
    trailers: Record<string, string>;
    bytes: number;
    sha256: string;
    httpVersion: string;
  };

describe.skipIf(!usable)('[backend:network-namespace] what passes the fence', () => {
  let internet: Internet;
  beforeAll(async () => {
    internet = await Internet.open();
    await internet.openFence(ROUTES);
  });
  afterAll(async () => {
    await internet[Symbol.asyncDispose]();
  });
  const curl = (args: readonly string[], options = {}) => internet.inside([...CURL, ...args], options);
  const TRANSPARENT = { transparent: true };

  test("curl by the proxy variables, without them, by IPv6, and with the image's own bundle alone", async () => {
    for (const options of [{}, TRANSPARENT, { bare: true }]) {
      const { stdout } = await curl(['https://api.example.com/hello?q=1'], options);
      expect(json(stdout)).toMatchObject({ method: 'GET', url: '/hello?q=1', headers: { host: 'api.example.com' } });
    }
    expect(json((await curl(['https://six.example.com/'], TRANSPARENT)).stdout).url).toBe('/');
    expect(json((await curl(['http://api.example.com:8080/plain'])).stdout).headers['host']).toBe(
      'api.example.com:8080',
    );
    const seen = await internet.event(
      ({ type, rule, path }) => type === 'request' && rule === 'api' && path === '/hello',
    );
    expect(JSON.stringify(seen)).not.toContain('q=1');
  });

  test('python, node, git and openssl trust the fence by their own variables', async () => {
    const python = "import urllib.request as u; print(u.urlopen('https://api.example.com/python').read().decode())";
    expect(json((await internet.inside(['python3', '-c', python])).stdout).url).toBe('/python');
    expect(json((await internet.inside(['python3', '-c', python], TRANSPARENT)).stdout).url).toBe('/python');
    const node =
      "process.stdout.write(await (await fetch('https://api.example.com/node',{method:'POST',body:'x'.repeat(9)})).text())";
    for (const options of [{}, TRANSPARENT]) {
      const { stdout } = await internet.inside([process.execPath, '--input-type=module', '-e', node], options);
      expect(json(stdout)).toMatchObject({ url: '/node', bytes: 9 });
    }
    const folder = join(internet.folder, 'repository.git');
    mkdirSync(folder);
    execFileSync('git', ['init', '--quiet', '--bare', folder]);
    execFileSync('git', ['-C', folder, 'update-server-info']);
    await internet.inside(['git', 'ls-remote', 'https://api.example.com/repository.git']);
    const { stdout } = await internet.inside(
      [
        'openssl',
        's_client',
        '-connect',
        'api.example.com:443',
        '-servername',
        'api.example.com',
        '-verify_return_error',
        '-quiet',
      ],
      { ...TRANSPARENT, input: 'GET / HTTP/1.0\r\nHost: api.example.com\r\n\r\n' },
    );
    expect(stdout.toString('utf8')).toContain('"httpVersion"');
  });

  const DENO = denoProgram();
  test.skipIf(DENO === undefined)('deno trusts the fence by its own variable', async () => {
    const program = "console.log(await (await fetch('https://api.example.com/deno')).text())";
    // Deno's own authorities and that of the variable, not those of the image.
    const env = {
      DENO_DIR: join(internet.folder, 'deno'),
      DENO_NO_UPDATE_CHECK: '1',
      DENO_TLS_CA_STORE: 'mozilla',
      SSL_CERT_FILE: '',
      NODE_EXTRA_CA_CERTS: '',
    };
    for (const options of [{}, TRANSPARENT]) {
      const { stdout } = await internet.inside([DENO!, 'eval', program], { ...options, env });
      expect(json(stdout).url).toBe('/deno');
    }
    const untrusting = await internet.inside([DENO!, 'eval', program], {
      env: { ...env, DENO_CERT: join(internet.folder, 'upstream-ca.pem') },
      okCodes: [1],
    });
    expect(untrusting.stderr.toString('utf8')).toMatch(/certificate|UnknownIssuer/i);
  });

  test('pip and requests trust the fence by their own variables', async () => {
    const requests = "import requests; print(requests.get('https://api.example.com/requests').text)";
    expect(json((await internet.inside(['/usr/bin/python3', '-c', requests])).stdout).url).toBe('/requests');
    const pip = [
      '/usr/bin/python3',
      '-m',
      'pip',
      '--disable-pip-version-check',
      'download',
      '--no-deps',
      '--no-cache-dir',
    ];
    const index = ['--retries', '0', '--index-url', 'https://api.example.com/simple/', 'decant-none'];
    // What the index says is no list of files, which pip says; it has come that far through TLS.
    const { stderr } = await internet.inside([...pip, '-d', internet.folder, ...index], { okCodes: [1] });
    expect(stderr.toString('utf8')).toContain('Content-Type: application/json');
    await internet.event(({ type, path }) => type === 'request' && path === '/simple/decant-none/');
    const foreign = join(internet.folder, 'upstream-ca.pem');
    const untrusting = await internet.inside([...pip, '-d', internet.folder, ...index], {
      env: { PIP_CERT: foreign, REQUESTS_CA_BUNDLE: '', CURL_CA_BUNDLE: '' },
      okCodes: [1, 2],
    });
    expect(untrusting.stderr.toString('utf8')).not.toContain('Content-Type');
  });

  test('cargo trusts the fence by its own variable', async () => {
    // Debian's library also reads the folder of the system, where our authority is as well: without it, the variable decides.
    const search = ['sh', '-c', 'rm -r /etc/ssl/certs && exec /usr/bin/cargo search --registry ours decant'];
    const env = {
      CARGO_HOME: join(internet.folder, 'cargo'),
      CARGO_REGISTRIES_OURS_INDEX: 'https://api.example.com/index',
      CARGO_NET_RETRY: '0',
      SSL_CERT_FILE: '',
    };
    for (const options of [{}, TRANSPARENT]) {
      // What it is answered is no repository, which it says; it has come that far through TLS.
      const { stderr } = await internet.inside(search, { ...options, env, okCodes: [101] });
      expect(stderr.toString('utf8')).toContain('found `application/json`');
    }
    await internet.event(({ type, path }) => type === 'request' && path === '/index/info/refs');
    const untrusting = await internet.inside(search, {
      env: { ...env, CARGO_HTTP_CAINFO: join(internet.folder, 'upstream-ca.pem') },
      okCodes: [101],
    });
    expect(untrusting.stderr.toString('utf8')).toMatch(/certificate/i);
  });

  test('a strict X.509 reader takes our certificates', async () => {
    const strict = [
      'import ssl,socket',
      'c=ssl.create_default_context(cafile="/etc/decant/ca.pem")',
      'c.verify_flags|=ssl.VERIFY_X509_STRICT',
      's=c.wrap_socket(socket.create_connection(("api.example.com",443)),server_hostname="api.example.com")',
      'print(s.version(), s.getpeercert()["subjectAltName"])',
    ].join('\n');
    const { stdout } = await internet.inside(['python3', '-c', strict], TRANSPARENT);
    expect(stdout.toString('utf8')).toContain("TLSv1.3 (('DNS', 'api.example.com'),)");
  });

  test('requests follow each other on one connection, also to another host; each is judged', async () => {
    const urls = ['http://api.example.com/1', 'http://forbidden.example.com/2', 'http://api.example.com/3'];
    const { stdout, stderr } = await curl(['-v', '--proxy', 'http://127.0.0.1:9099', ...urls], TRANSPARENT);
    expect(stdout.toString('utf8')).toContain('decant refused this (no-route)');
    expect(stdout.toString('utf8')).toContain('"url":"/3"');
    expect(stderr.toString('utf8')).toContain('Re-using existing connection');
    expect((await internet.seen()).asked).not.toContain('forbidden.example.com');
  });

  test('a body streams up in chunks with trailers, and its length and bytes are kept', async () => {
    const body = Buffer.alloc(3_000_000, 'body');
    const file = join(internet.folder, 'body');
    await writeFile(file, body);
    const plain = json((await curl(['-T', file, 'https://api.example.com/put'])).stdout);
    expect(plain).toMatchObject({ method: 'PUT', bytes: body.length });
    const chunked = json(
      (await curl(['-T', '-', '-H', 'Expect: 100-continue', 'https://api.example.com/put'], { input: body })).stdout,
    );
    expect(chunked).toMatchObject({ bytes: body.length, sha256: plain.sha256 });
    expect(chunked.headers['transfer-encoding']).toBe('chunked');
    const text =
      'POST http://api.example.com/t HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nConnection: close\r\n\r\n3;ext=1\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n';
    const answer = (await internet.raw('127.0.0.1', 9099, text)).toString('latin1');
    expect(answer).toContain('"trailers":{"x-sum":"3"}');
  });

  test('trailers, early hints and an early answer come back', async () => {
    const ask = (path: string, more = '') =>
      internet.raw(
        '127.0.0.1',
        9099,
        `GET http://api.example.com${path} HTTP/1.1\r\nHost: api.example.com\r\n${more}Connection: close\r\n\r\n`,
      );
    expect((await ask('/trailers')).toString('latin1')).toMatch(/\r\n0\r\nx-sum: 18\r\n\r\n$/);
    expect((await ask('/hints')).toString('latin1')).toMatch(/^HTTP\/1\.1 103 Early Hints\r\nlink: /);
    const big = Buffer.alloc(4_000_000);
    const early = await curl(
      ['-T', '-', '-o', '/dev/null', '-w', '%{http_code}', 'https://api.example.com/too-large'],
      { input: big, okCodes: [0, 55, 56] },
    );
    expect(early.stdout.toString('utf8')).toBe('413');
  });

  test('HTTP/1.0 gets a body without chunks, and a body without a length ends with the connection', async () => {
    const old = await internet.raw(
      '127.0.0.1',
      9099,
      'GET http://api.example.com/trailers HTTP/1.0\r\nHost: api.example.com\r\n\r\n',
    );
    expect(old.toString('latin1')).toMatch(/\r\n\r\npart one, part two$/);
    const { stdout } = await curl(['http://api.example.com:8081/until-close']);
    expect(stdout.toString('utf8')).toBe('until the end');
  });

  test('a WebSocket carries text and bytes both ways and closes', async () => {
    const program = [
      "const w=new WebSocket('wss://api.example.com/socket'); w.binaryType='arraybuffer'; const got=[];",
      "w.onopen=()=>{w.send('hello'); w.send(new Uint8Array(300000).fill(7))};",
      "w.onmessage=({data})=>{got.push(typeof data==='string'?data:data.byteLength); if(got.length===2) w.close(4001,'done')};",
      "w.onclose=({code,reason})=>console.log(JSON.stringify([...got,code,reason])); w.onerror=(e)=>console.log('error',e.message);",
    ].join('\n');
    const before = (await internet.seen()).aborted;
    const { stdout } = await internet.inside([process.execPath, '-e', program], TRANSPARENT);
    expect(JSON.parse(stdout.toString('utf8'))).toEqual(['hello', 300_000, 4001, 'done']);
    await expect.poll(async () => (await internet.seen()).aborted).toBeGreaterThan(before);
    expect(await internet.event(({ type, status }) => type === 'end' && status === 101)).toMatchObject({ rule: 'api' });
  });

  test('TLS passes unopened where the route says so, and TCP of a server that speaks first', async () => {
    const passed = await curl(
      ['--cacert', join(internet.folder, 'upstream-ca.pem'), 'https://pinned.example.com:8443/x'],
      TRANSPARENT,
    );
    expect(json(passed.stdout).url).toBe('/x');
    const tunnelled = await curl([
      '--cacert',
      join(internet.folder, 'upstream-ca.pem'),
      'https://pinned.example.com:8443/y',
    ]);
    expect(json(tunnelled.stdout).url).toBe('/y');
    const wrong = await curl(
      [
        '-k',
        '--connect-to',
        'pinned.example.com:8443:api.example.com:8443',
        '-H',
        'Host: x',
        'https://other.example.com:8443/',
      ],
      { ...TRANSPARENT, okCodes: [0, 6, 35, 56] },
    );
    expect(wrong.exitCode).not.toBe(0);
    const python =
      "import socket; s=socket.create_connection(('api.example.com',2222),5); print(s.recv(99)); s.sendall(b'echo'); s.shutdown(1); print(s.recv(99))";
    const { stdout } = await internet.inside(['python3', '-c', python], TRANSPARENT);
    expect(stdout.toString('utf8')).toBe("b'220 hello\\r\\n'\nb'echo'\n");
  });

  test('a route may list a private range; the same name without it is refused', async () => {
    expect(json((await curl(['http://private.example.com/'])).stdout).url).toBe('/');
    await internet.reload({
      routes: [...ROUTES.filter(({ id }) => id !== 'private'), route('bare', 'private.example.com')],
      deny: [],
    });
    expect((await curl(['http://private.example.com/'])).stdout.toString('utf8')).toContain('(private-address)');
    await internet.reload({ routes: ROUTES, deny: [] });
    await expect(
      internet.reload({ routes: [route('new', 'a.example', { ports: [7777] })], deny: [] }),
    ).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
  });

  test('errors of servers become 502 and 504 with the reason, and a cut body is seen as cut', async () => {
    const ask = async (url: string) => {
      const { stdout } = await curl(['-w', ' %{http_code}', url]);
      return stdout.toString('utf8');
    };
    expect(await ask('https://untrusted.example.com/')).toMatch(/\(upstream-certificate\).* 502$/s);
    expect(await ask('http://dead.example.com/')).toMatch(/\(upstream-unreachable\).*refused the connection.* 502$/s);
    expect(await ask('http://unlisted.example.com/')).toMatch(/\(unresolved\).* 502$/s);
    for (const path of ['garbage', 'gone', 'long-head', 'two-lengths', 'endless-100']) {
      expect(await ask(`http://api.example.com:8081/${path}`)).toMatch(/\(upstream-invalid\).* 502$/s);
    }
    const cut = await curl(['http://api.example.com:8081/short'], { okCodes: [18, 56] });
    expect(cut.stdout.toString('utf8')).toBe('ten bytes.');
  });

  test('a redirect is not followed, and what it leads to is judged', async () => {
    const first = await curl([
      '-w',
      '%{http_code}',
      'https://api.example.com/redirect?to=https://forbidden.example.com/',
    ]);
    expect(first.stdout.toString('utf8')).toBe('elsewhere302');
    const followed = await curl(['-L', 'https://api.example.com/redirect?to=https://forbidden.example.com/'], {
      okCodes: [56],
    });
    expect(followed.stderr.toString('utf8')).toContain('403');
    expect((await internet.seen()).forbidden.connections).toBe(0);
  });

  test('a large body streams each way while the sidecar stays small', { timeout: 300_000 }, async () => {
    // 1,024 in the long form.
    const mib = Number(process.env['DECANT_STREAM_MIB'] ?? 100);
    const timeoutMs = 120_000;
    const before = await memoryOf(internet.fence.processId);
    const slow = ['curl', '--silent', '--show-error', '--max-time', '120'];
    const get = [...slow, '-o', '/dev/null', '-w', '%{size_download}', `https://api.example.com/big?mib=${mib}`];
    const down = await internet.inside(get, { timeoutMs });
    expect(down.stdout.toString('utf8')).toBe(String(mib * MIB));
    const put = `head -c ${mib * MIB} /dev/zero | ${slow.join(' ')} -T - https://api.example.com/up`;
    expect(json((await internet.inside(['sh', '-c', put], { timeoutMs })).stdout).bytes).toBe(mib * MIB);
    expect((await memoryOf(internet.fence.processId)) - before).toBeLessThan(100 * MIB);
  });
});

/** Highest resident memory so far, bytes. */
async function memoryOf(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmHWM:\s+([0-9]+) kB$/m.exec(status)?.[1]) * 1024;
}

/** Of the package `deno`, whose program is in another package for each platform. */
function denoProgram(): string | undefined {
  try {
    const own = createRequire(createRequire(import.meta.url).resolve('deno/package.json'));
    return own.resolve(`@deno/linux-${process.arch}-glibc/deno`);
  } catch {
    return undefined;
  }
}
