import { spawn } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath, pathToFileURL } from 'node:url';

import { processStart, run } from '@decant/core/node';
import { describe, expect, test } from 'vitest';

import { route } from '../testing/internet.ts';
import { openFence, openFenceListeners } from './open-fence.ts';
import { startSidecar } from './sidecar-process.ts';

const usable = process.platform === 'linux' && process.getuid?.() === 0;
const NOTHING = { routes: [], deny: [] };

describe.skipIf(!usable)('[backend:network-namespace] the fence itself', () => {
  test('the sidecar has no rights, no environment, a user of its own, and a certificate of its own', async () => {
    await using first = await openFence({ network: 'new', policy: NOTHING, onAudit: () => undefined });
    await using second = await openFence({ network: 'new', policy: NOTHING, onAudit: () => undefined });
    const status = await readFile(`/proc/${first.processId}/status`, 'utf8');
    expect(status).toMatch(/^CapPrm:\t0{16}$/m);
    expect(status).toMatch(/^NoNewPrivs:\t1$/m);
    const uids = await Promise.all(
      [first, second].map(async ({ processId }) => (await stat(`/proc/${processId}`)).uid),
    );
    expect(uids[0]).toBeGreaterThanOrEqual(0x5000_0000);
    expect(uids[0]).not.toBe(uids[1]);
    expect(status).toMatch(new RegExp(`^Groups:\\t${uids[0]} *$`, 'm'));
    expect(status).toMatch(new RegExp(`^Gid:(?:\\t${uids[0]}){4}$`, 'm'));
    expect(
      (await readFile(`/proc/${first.processId}/environ`, 'latin1'))
        .split('\0')
        .filter(Boolean)
        .every((entry) => entry.startsWith('NODE_CHANNEL_')),
    ).toBe(true);
    const limits = await readFile(`/proc/${first.processId}/limits`, 'utf8');
    expect(limits).toMatch(/^Max core file size\s+1\s+1\s/m);
    expect(limits).toMatch(/^Max open files\s+8192\s+8192\s/m);
    expect(limits).toMatch(/^Max processes\s+64\s+64\s/m);
    expect(first.certificatePem).not.toBe(second.certificatePem);
    expect((await stat(first.networkNamespace)).ino).not.toBe((await stat(second.networkNamespace)).ino);
    expect((await stat(first.networkNamespace)).ino).not.toBe((await stat('/proc/self/ns/net')).ino);
  });

  test('a file that the supervisor was started with is not open in the sidecar', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'decant-inherited-'));
    const secret = join(folder, 'secret');
    await writeFile(secret, 'of the operator');
    const program = [
      `import { openFence } from ${JSON.stringify(new URL('./open-fence.ts', import.meta.url).href)};`,
      "import { readdirSync, readlinkSync } from 'node:fs';",
      "import { setTimeout } from 'node:timers/promises';",
      'const open = (pid) => readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {',
      '  try { return [readlinkSync(`/proc/${pid}/fd/${fd}`)] } catch { return [] }',
      '});',
      "await using fence = await openFence({ network: 'new', policy: { routes: [], deny: [] }, onAudit: () => undefined });",
      // What the sidecar reads by itself (the authorities of the system, after it answered) is open for a moment; what it inherited stays.
      'const others = () => open(fence.processId).filter((name) => /^\\/(?!dev\\/null$|proc\\/)/.test(name));',
      'for (let tries = 0; tries < 200 && others().length > 0; tries += 1) await setTimeout(50);',
      "console.log(JSON.stringify({ own: open('self'), sidecar: open(fence.processId), others: others() }));",
    ].join('\n');
    try {
      // Node closes the first sixteen and what follows them without a gap for its children by itself.
      const child = spawn(
        'bash',
        [
          ...['-c', 'exec 63<"$0"; exec "$@"', secret, process.execPath],
          ...['--conditions=@decant/source', '--no-warnings', '--input-type=module', '-e', program],
        ],
        { stdio: ['ignore', 'pipe', 'inherit'] },
      );
      const files = JSON.parse(await text(child.stdout)) as Record<'own' | 'sidecar' | 'others', string[]>;
      expect(files.own).toContain(secret);
      expect(files.sidecar).not.toContain(secret);
      expect(files.others).toEqual([]);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test('when the sidecar dies, connections are refused at once and its end is told', async () => {
    const fence = await openFence({ network: 'new', policy: NOTHING, onAudit: () => undefined });
    const program = [
      'import socket,os,sys,time',
      "socket.create_connection(('203.0.113.10',443),20).close(); print('open',flush=True)",
      'sys.stdin.readline(); t=time.time(); n=0',
      'while time.time()-t<30:',
      " try: socket.create_connection(('203.0.113.10',443),20).close(); time.sleep(0.02)",
      ' except ConnectionRefusedError: n=1; break',
      "print('refused' if n else 'still open')",
    ].join('\n');
    // The program holds the namespace, as a machine does.
    let heard = (_line: string) => undefined as void;
    const opened = new Promise<void>((resolve) => {
      heard = () => resolve();
    });
    async function* orders() {
      await opened;
      process.kill(fence.processId, 'SIGKILL');
      yield Buffer.from('now\n');
    }
    const { stdout } = await run('nsenter', [`--net=${fence.networkNamespace}`, 'python3', '-c', program], {
      input: orders(),
      onLine: (line) => heard(line),
      timeoutMs: 60_000,
    });
    expect(stdout.toString('utf8')).toBe('open\nrefused\n');
    expect((await fence.ended).reason).toContain('SIGKILL');
    await fence.close();
    await expect(fence.stats()).rejects.toMatchObject({ code: 'JAIL_FAILED' });
  });

  test('the sidecar dies with its supervisor, however that ends', async () => {
    const index = fileURLToPath(new URL('./open-fence.ts', import.meta.url));
    const program = [
      `const { openFence } = await import(${JSON.stringify(index)});`,
      "const fence = await openFence({ network: 'new', policy: { routes: [], deny: [] }, onAudit: () => undefined });",
      'process.stdout.write(fence.processId + "\\n", () => process.kill(process.pid, "SIGKILL"));',
    ].join('\n');
    const args = ['--conditions=@decant/source', '--input-type=module', '-e', program];
    let pid = 0;
    const told = (line: string) => {
      pid = Number(line);
    };
    await expect(run(process.execPath, args, { onLine: told, timeoutMs: 120_000 })).rejects.toThrow('SIGKILL');
    expect(pid).toBeGreaterThan(1);
    await expect.poll(() => processStart(pid)).toBeUndefined();
  });

  test('a supervisor that cannot record closes the fence', async () => {
    const fence = await openFence({
      network: 'new',
      policy: NOTHING,
      // Whether it is a request or a connection that is refused depends on how soon the client says what it wants.
      onAudit: ({ type }) => {
        if (type !== 'fence') throw new Error('the disk is full');
      },
    });
    await run(
      'nsenter',
      [
        `--net=${fence.networkNamespace}`,
        'python3',
        '-c',
        "import socket; s=socket.create_connection(('1.1.1.1',80)); s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n'); s.recv(99)",
      ],
      { okCodes: [0, 1], timeoutMs: 60_000 },
    );
    expect((await fence.ended).reason).toContain('could not be recorded: the disk is full');
  });

  test('listeners may stand ready before their policy; they let nothing through and are configured once', async () => {
    await using listeners = await openFenceListeners({ network: 'new', ports: [8443] });
    expect(listeners.ports).toEqual([80, 443, 8443]);
    const onAudit = () => undefined;
    const other = { routes: [route('a', 'a.example', { ports: [9000] })], deny: [] };
    await expect(listeners.configure({ policy: other, onAudit })).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    const fence = await listeners.configure({ policy: NOTHING, onAudit });
    await expect(listeners.configure({ policy: NOTHING, onAudit })).rejects.toMatchObject({ code: 'USAGE' });
    expect(await fence.stats()).toMatchObject({ connections: 0 });
  });

  test('a namespace that is there already is fenced too; the own one of the host is refused', async () => {
    await using outer = await openFenceListeners({ network: 'new' });
    await outer.configure({ policy: NOTHING, onAudit: () => undefined });
    // In a network of its own, so that what should not be refused would not become the network of this machine.
    const program = [
      `const { openFence } = await import(${JSON.stringify(new URL('./open-fence.ts', import.meta.url).href)});`,
      "const options = { network: { path: '/proc/self/ns/net' }, policy: { routes: [], deny: [] }, onAudit: () => undefined };",
      'const told = await openFence(options).then(() => ({ code: "opened" }), ({ code, message }) => ({ code, message }));',
      'process.stdout.write(JSON.stringify(told), () => process.exit());',
    ].join('\n');
    const alone = ['--net', process.execPath, '--conditions=@decant/source', '--input-type=module', '-e', program];
    const { stdout } = await run('unshare', alone, { timeoutMs: 120_000 });
    expect(JSON.parse(stdout.toString('utf8'))).toMatchObject({
      code: 'JAIL_FAILED',
      message: expect.stringContaining('the namespace of the host is no bottle') as string,
    });
    await expect(
      openFence({ network: { path: '/proc/self/status' }, policy: NOTHING, onAudit: () => undefined }),
    ).rejects.toMatchObject({ code: 'JAIL_FAILED' });
    // Its ports are taken there.
    await expect(
      openFence({ network: { path: outer.networkNamespace }, policy: NOTHING, onAudit: () => undefined }),
    ).rejects.toMatchObject({ code: 'JAIL_FAILED' });
  });

  test('a program below a folder that only root may pass is started, and sees nothing else of that folder', async () => {
    const closed = await mkdtemp(join(tmpdir(), 'decant-closed-'));
    try {
      await mkdir(join(closed, 'package'));
      await writeFile(join(closed, 'secret'), 'for root alone');
      const program = join(closed, 'package/sidecar.mjs');
      const source = [
        "import { existsSync, readdirSync } from 'node:fs';",
        `const seen = JSON.stringify([readdirSync(${JSON.stringify(closed)}), existsSync(${JSON.stringify(join(closed, 'secret'))}), process.getuid() >= 0x50000000]);`,
        "process.on('message', () => process.exit(0));",
        "process.send({ type: 'listening', certificatePem: seen });",
      ];
      await writeFile(program, source.join('\n'));
      await chmod(closed, 0o700);
      const { sidecar, certificatePem } = await startSidecar(
        { network: 'new', sidecarUrl: pathToFileURL(program) },
        [80],
      );
      await sidecar.close();
      expect(JSON.parse(certificatePem)).toEqual([['package'], false, true]);
      // Only the sidecar saw the stand-in.
      expect(await readFile(join(closed, 'secret'), 'utf8')).toBe('for root alone');
    } finally {
      await rm(closed, { recursive: true, force: true });
    }
  });

  test('a sidecar that says what it may not, or does not end, is ended', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'decant-odd-sidecar-'));
    try {
      const program = join(folder, 'sidecar.mjs');
      await chmod(folder, 0o755);
      const begun = "process.send({ type: 'listening', certificatePem: 'none' });";
      const start = async (source: string) => {
        await writeFile(program, source);
        return (await startSidecar({ network: 'new', sidecarUrl: pathToFileURL(program) }, [80])).sidecar;
      };
      const odd = await start(`${begun} process.send({ type: 'listening', certificatePem: 'x', more: 1 });`);
      expect((await odd.ended).reason).toBe('it sent a message that the supervisor does not know');
      const deaf = await start(`${begun} process.on('message', () => undefined);`);
      await deaf.close();
      expect((await deaf.ended).reason).toBe('the fence was closed');
      expect(await processStart(deaf.pid)).toBeUndefined();
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });

  test('bad settings are told before anything is opened', async () => {
    const onAudit = () => undefined;
    const open = (more: object) => openFence({ network: 'new', policy: NOTHING, onAudit, ...more });
    await expect(open({ policy: { routes: [route('a', 'bad host')], deny: [] } })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
    });
    await expect(
      open({ policy: { routes: [route('a', 'a.example', { ports: [9099] })], deny: [] } }),
    ).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    await expect(open({ upstreamCaPem: 'nothing' })).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    await expect(open({ resolvers: [] })).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    await expect(open({ resolvers: ['not an address'] })).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    await expect(open({ signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow('enough');
  });
});
