import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { MIB } from '@decant/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { requireBuildCells, runBuildCell, type BuildCellOptions } from './build-cell.ts';
import { createVolume } from './volume.ts';

const exec = promisify(execFile);
const available = await requireBuildCells().then(
  () => true,
  () => false,
);
const FIRST_ID = 0x5fff_0000;
const SECRET = 'a-secret-of-the-host';

describe.skipIf(!available)('[backend:bubblewrap] a cell for builds', () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'cell-'));
    await mkdir(join(directory, 'in'), { mode: 0o755 });
    await mkdir(join(directory, 'mount'));
    await writeFile(join(directory, 'in', 'given'), 'from the service\n', { mode: 0o644 });
    await createVolume(join(directory, 'volume'), { sizeBytes: 64 * MIB, ownerId: FIRST_ID });
  });
  afterEach(() => rm(directory, { recursive: true, force: true, maxRetries: 3 }));

  async function run(script: string, change: Partial<BuildCellOptions> & { cpuMs?: number } = {}) {
    const lines: string[] = [];
    const output: Uint8Array[] = [];
    // A script in an argument would be found again by what looks into the processes.
    await writeFile(join(directory, 'in', 'script'), script, { mode: 0o644 });
    const result = await runBuildCell({
      volumeFile: join(directory, 'volume'),
      firstHostId: FIRST_ID,
      inbox: join(directory, 'in'),
      mountPoint: join(directory, 'mount'),
      argv: ['/bin/sh', '/in/script'],
      env: { PATH: '/usr/sbin:/usr/bin', GIVEN: 'yes' },
      limits: { memoryBytes: 96 * MIB, processes: 64, cpus: 2, cpuMs: change.cpuMs ?? 60_000, outputBytes: MIB },
      output: async (piece) => {
        output.push(piece);
      },
      onLine: (line) => lines.push(line),
      ...change,
    });
    return { ...result, lines, output: Buffer.concat(output) };
  }

  it('gives its program a root of its own, the inbox, a volume that stays and descriptor 3', async () => {
    const first = await run('cat /in/given; id -u; pwd; echo kept > /build/file; echo bytes >&3; exit 7');
    expect(first).toMatchObject({ exitCode: 7, limit: undefined, lines: ['from the service', '0', '/build'] });
    expect(first.output.toString()).toBe('bytes\n');
    const second = await run(
      'cat /build/file; mkdir /build/m && mount -t tmpfs x /build/m && echo mounted; chown 1000 /build/file',
    );
    expect(second).toMatchObject({ exitCode: 0, lines: ['kept', 'mounted'] });
    const { stdout } = await exec('debugfs', ['-R', 'stat file', join(directory, 'volume')]);
    expect(stdout).toContain(`User: ${FIRST_ID + 1000}`);
  });

  it('shows nothing of the host: files, processes, environment, sockets, network', async () => {
    process.env['DECANT_CELL_TEST'] = SECRET;
    const file = join(directory, 'secret');
    await writeFile(file, SECRET, { mode: 0o644 });
    await writeFile(join(directory, 'in', 'where'), file, { mode: 0o644 });
    const socket = join(directory, 'socket');
    const [unix, abstract, tcp] = [createServer(), createServer(), createServer()];
    for (const server of [unix, abstract, tcp]) server.on('connection', (peer) => peer.end(SECRET));
    unix.listen(socket);
    abstract.listen(`\0decant-cell-test-${process.pid}`);
    tcp.listen(0, '127.0.0.1');
    await Promise.all([unix, abstract, tcp].map((server) => once(server, 'listening')));
    const port = (tcp.address() as { port: number }).port;
    const connect = (to: string) => `perl -MSocket -e '${to} or print "no\\n" and exit; print <S>'`;
    try {
      const { lines, exitCode } = await run(`
        for f in "$(cat /in/where)"; do cat $f /proc/1/root$f /proc/1/cwd$f 2>/dev/null; done
        env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'
        cat /proc/*/cmdline | tr '\\0' ' '
        ls /root /home /var/lib /etc/shadow /etc/ssl 2>/dev/null
        cat /etc/passwd /etc/shadow 2>/dev/null
        echo; echo sockets
        ${connect(`socket(S, AF_UNIX, SOCK_STREAM, 0) && connect(S, pack_sockaddr_un("\\0decant-cell-test-${process.pid}"))`)}
        ${connect(`socket(S, AF_INET, SOCK_STREAM, 0) && connect(S, pack_sockaddr_in(${port}, inet_aton("127.0.0.1")))`)}
        (echo x > /in/new) 2>/dev/null || echo read-only
        (echo x > /usr/bin/new) 2>/dev/null || echo read-only
        mount -o remount,rw /usr 2>/dev/null || echo locked
        mknod /build/disk b 7 0 2>/dev/null || echo no device
        ls /dev | tr '\\n' ' '; echo; ls /sys/class /sys/fs 2>/dev/null
        kill -9 ${process.pid} 2>/dev/null || echo no such process
        grep -c . /proc/net/dev`);
      expect(exitCode).toBe(0);
      const text = lines.join('\n');
      expect(text).not.toContain(SECRET);
      expect(text).not.toContain(directory);
      expect(text).toContain('GIVEN=yes');
      const after = lines.slice(lines.indexOf('sockets') + 1);
      expect(after.slice(0, 6)).toEqual(['no', 'no', 'read-only', 'read-only', 'locked', 'no device']);
      expect(text).not.toMatch(/\b(loop|vd|sd|nvme|mem|kvm|fuse)/);
      expect(after).toContain('no such process');
      // Two lines of heading and the loopback.
      expect(after.at(-1)).toBe('3');
    } finally {
      for (const server of [unix, abstract, tcp]) server.close();
      delete process.env['DECANT_CELL_TEST'];
    }
  });

  it('refuses system calls that builders do not need', async () => {
    const call = (number: number, ...args: string[]) =>
      `perl -e 'print syscall(${[number, ...args].join(', ')}) < 0 ? "no $!\\n" : "yes\\n"'`;
    if (process.arch !== 'x64') return;
    // bpf, add_key, perf_event_open, userfaultfd, init_module, kexec_load, io_uring_setup, open_by_handle_at
    const { lines } = await run(
      [321, 248, 298, 323, 175, 246, 425, 304].map((number) => call(number, '0', '0', '0', '0', '0')).join(';'),
    );
    expect(new Set(lines)).toEqual(new Set(['no Operation not permitted']));
  });

  it.each<[string, string, object, object]>([
    ['memory', 'perl -e \'my @x; push @x, "x" x 1048576 while 1\'', {}, { limit: 'memory' }],
    ['disk', 'dd if=/dev/zero of=/build/big bs=1M 2>/dev/null', {}, { limit: 'disk' }],
    ['processes', 'for i in $(seq 200); do sleep 9 & done', {}, { limit: 'processes' }],
    ['processor time', 'while :; do :; done', { cpuMs: 500 }, { limit: 'cpu-time' }],
    ['output', 'cat /dev/zero >&3', {}, { limit: 'output' }],
  ])('ends what uses too much %s, and says so', async (_, script, change, result) => {
    expect(await run(script, change)).toMatchObject(result);
  });

  it('does not let its program wait for who reads the output', async () => {
    const seen: string[] = [];
    const last = `6${process.pid}`;
    let written: number | undefined;
    await run(`echo go; seq 200000; exec sleep ${last}`, {
      onLine: (line) => {
        seen.push(line);
        if (line !== 'go') return;
        // As a service that is busy with something else, until all is written.
        const deadline = performance.now() + 60_000;
        while (written === undefined && performance.now() < deadline) written = processOf(['sleep', last]);
        if (written !== undefined) process.kill(written, 'SIGKILL');
      },
    });
    expect(written).toBeDefined();
    expect(seen.slice(1)).toEqual(Array.from({ length: 200_000 }, (_, i) => String(i + 1)));
  });

  it('leaves no process, mount, loop device or group, when it ends, is aborted or its starter is killed', async () => {
    const mark = `7${Date.now() % 1e7}`;
    const volume = join(directory, 'volume');
    const left = async () => {
      const { stdout: processes } = await exec('ps', ['-eo', 'args']);
      const { stdout: loops } = await exec('losetup', ['-j', volume]);
      return { processes: processes.split('\n').filter((line) => line === `sleep ${mark}`), loops };
    };
    const gone = () => expect.poll(left).toEqual({ processes: [], loops: '' });
    const script = `sleep ${mark} & setsid sleep ${mark} & echo go; sleep ${mark}`;
    await run(`sleep ${mark} & setsid sleep ${mark} & true`);
    await gone();
    const controller = new AbortController();
    const reason = new Error('enough');
    const aborted = run(script, { signal: controller.signal, onLine: () => controller.abort(reason) });
    await expect(aborted).rejects.toBe(reason);
    await gone();
    const module = new URL('build-cell.ts', import.meta.url).href;
    const options = {
      ...{
        volumeFile: volume,
        firstHostId: FIRST_ID,
        inbox: join(directory, 'in'),
        mountPoint: join(directory, 'mount'),
      },
      ...{ argv: ['/bin/sh', '-c', script], env: { PATH: '/usr/bin' } },
      limits: { memoryBytes: 96 * MIB, processes: 64, cpus: 1, cpuMs: 1e6, outputBytes: 1 },
    };
    const source = `import { runBuildCell } from ${JSON.stringify(module)};
      await runBuildCell({ ...${JSON.stringify(options)}, output: async () => {}, onLine: console.log });`;
    const args = ['--conditions=@decant/source', '--input-type=module', '--eval', source];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(child.stdout, 'data');
    // It says so before the last of them is there, and each is a shell until it is read from the disk.
    await expect.poll(async () => (await left()).processes.length).toBe(3);
    child.kill('SIGKILL');
    await once(child, 'exit');
    await gone();
    // The groups of the killed process go with a run that comes when the kernel has let go of all that was in them.
    const groupsAfterRun = async () => {
      expect(await run('true')).toMatchObject({ exitCode: 0 });
      const groups = await readdir('/sys/fs/cgroup/memory').catch(() => readdir('/sys/fs/cgroup'));
      return groups.filter((name) => new RegExp(`^decant-\\d+-${child.pid}-`).test(name));
    };
    await expect.poll(groupsAfterRun).toEqual([]);
  });

  it('says why when it cannot be set up', async () => {
    await writeFile(join(directory, 'volume'), 'no filesystem');
    await expect(run('true')).rejects.toMatchObject({
      code: 'JAIL_FAILED',
      message: expect.stringContaining('volume'),
    });
  });

  it('is refused to whoever is not root', async () => {
    const module = new URL('build-cell.ts', import.meta.url).href;
    const source = `process.setuid(65534); const { requireBuildCells } = await import(${JSON.stringify(module)});
      await requireBuildCells().then(() => console.log('yes'), (error) => console.log(error.code, error.hint));`;
    const args = ['--conditions=@decant/source', '--input-type=module', '--eval', source];
    const { stdout } = await exec(process.execPath, args).catch(() => ({ stdout: '' }));
    // Nobody may not be able to read the sources at all, as in a checkout below a private home.
    if (stdout !== '') expect(stdout).toBe('JAIL_UNAVAILABLE Run the service as root.\n');
  });
});

/** The process of this machine with these arguments, looked for at once. */
function processOf(argv: readonly string[]): number | undefined {
  const wanted = `${argv.join('\0')}\0`;
  const isIt = (pid: string) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8') === wanted;
    } catch {
      return false;
    }
  };
  const found = readdirSync('/proc').find((pid) => /^\d+$/.test(pid) && isIt(pid));
  return found === undefined ? undefined : Number(found);
}
