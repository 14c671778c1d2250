import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, chown, copyFile, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

import { Scope } from '@decant/core';
import { findProgram, run } from '@decant/core/node';

import { expect } from 'vitest';

import type { Backend, BottleImage, Exec, ExecRequest, Machine, MachineRequest, ResourceStack } from './backend.ts';

export const MIB = 1024 * 1024;

const APPLETS =
  'sh ls id cat echo touch sleep ip mount mknod mkfifo unshare dd hostname stat chown chmod kill su ps wc ln rm rmdir mkdir mv ' +
  'seq head tail tee stty tty setsid env pwd true false sha256sum yes find truncate readlink grep sort df sync cut umount';

/** Programs of this machine that the guest's image is made of. */
export const GUEST_PROGRAMS = ['busybox', 'perl', 'ldd', 'mkfs.erofs'] as const;

/** Machines of one backend on one image, which has busybox, perl and a user `app` (1000:1001, group 2000). */
export interface BackendFixture extends AsyncDisposable {
  /** Where tests may write; gone at the end. */
  readonly folder: string;
  /** Claims of resources that were not released. */
  readonly claims: readonly string[];
  /** By default of the fixture's backend. */
  open(options?: Partial<MachineRequest>, other?: Backend): Promise<Machine>;
}

export async function openBackendFixture(backend: Backend): Promise<BackendFixture> {
  const scope = new Scope();
  const folder = await mkdtemp(join(tmpdir(), 'decant-backend-'));
  scope.defer(() => rm(folder, { recursive: true, force: true }));
  const image = await guestImage(folder);
  const claims: string[] = [];
  let machines = 0;
  return {
    folder,
    claims,
    async open(options = {}, other = backend) {
      const number = machines++;
      const stateDirectory = join(folder, `state-${number}`);
      await mkdir(stateDirectory, { mode: 0o700 });
      const own = new Scope();
      scope.defer(() => own[Symbol.asyncDispose]());
      const enter: ResourceStack['enter'] = async (claim, acquire, release) => {
        const value = await acquire(() => Promise.resolve());
        claims.push(claim.kind);
        own.defer(async () => {
          await release(value);
          claims.splice(claims.indexOf(claim.kind), 1);
        });
        return value;
      };
      const stack: ResourceStack = { enter, hold: enter };
      const prepared = await other.prepare(
        {
          slug: `contract-${process.pid}-${number}`,
          image,
          hostname: 'bottle',
          mounts: [],
          limits: { cpus: 2, memoryBytes: 256 * MIB, processes: 128, diskBytes: 64 * MIB, wallTimeMs: 120_000 },
          stateDirectory,
          ...options,
        },
        stack,
      );
      own.defer(() => prepared[Symbol.asyncDispose]());
      const networkNamespace =
        prepared.network === 'new' ? own.use(await openNetworkNamespace()).path : prepared.network.path;
      const machine = await prepared.start({ networkNamespace });
      return { ...machine, [Symbol.asyncDispose]: () => own[Symbol.asyncDispose]() };
    },
    [Symbol.asyncDispose]: () => scope[Symbol.asyncDispose](),
  };
}

/** A network namespace of the host's user namespace with loopback and nothing else. */
async function openNetworkNamespace(): Promise<{ readonly path: string } & AsyncDisposable> {
  const script = 'ip link set lo up; echo ready; exec sleep 600';
  const child = spawn('unshare', ['--net', '--', 'sh', '-c', script], { stdio: ['ignore', 'pipe', 'ignore'] });
  await once(child.stdout, 'data');
  return {
    path: `/proc/${child.pid}/ns/net`,
    async [Symbol.asyncDispose]() {
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    },
  };
}

async function guestImage(folder: string): Promise<BottleImage> {
  const tree = join(folder, 'tree');
  for (const name of ['bin', 'etc', 'tmp', 'home/app', 'old/inner', 'job']) {
    await mkdir(join(tree, name), { recursive: true });
  }
  await copyFile((await findProgram('busybox'))!, join(tree, 'bin/busybox'));
  for (const name of APPLETS.split(' ')) await symlink('busybox', join(tree, 'bin', name));
  const perl = (await findProgram('perl'))!;
  await copyFile(perl, join(tree, 'bin/perl'));
  const { stdout } = await run('ldd', [perl]);
  for (const [path] of stdout.toString().matchAll(/\/\S+/g)) {
    await mkdir(join(tree, dirname(path)), { recursive: true });
    await copyFile(path, join(tree, path));
  }
  await writeFile(join(tree, 'etc/passwd'), 'root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n');
  await writeFile(join(tree, 'etc/group'), 'root:x:0:\ntty:x:5:\napp:x:1001:\nextra:x:2000:app\n');
  await writeFile(join(tree, 'etc/private'), 'for image root\n', { mode: 0o600 });
  await writeFile(join(tree, 'old/file'), 'from the image\n');
  await writeFile(join(tree, 'old/inner/kept'), 'kept\n');
  await writeFile(join(tree, 'bad-interpreter'), '#!/no/such/program\n', { mode: 0o755 });
  await chmod(join(tree, 'tmp'), 0o1777);
  for (const name of ['home/app', 'job']) await chown(join(tree, name), 1000, 1001);
  const file = join(folder, 'image.erofs');
  await run('mkfs.erofs', [file, tree], { timeoutMs: 60_000 });
  const config = { User: 'app', Env: ['PATH=/bin', 'GREETING=good day'], WorkingDir: '/job' };
  return { id: 'contract', disk: { file }, filesystem: 'erofs', config };
}

export interface Ran {
  readonly exitCode: number;
  readonly timedOut: boolean;
  readonly out: string;
  readonly err: string;
}

/** Runs a command to its end. */
export async function ran(
  machine: Machine,
  argv: readonly string[],
  { input, ...request }: Partial<ExecRequest> & { readonly input?: string | undefined } = {},
): Promise<Ran> {
  const running = await machine.exec({ argv, ...request });
  running.stdin.end(input ?? '');
  const [out, err, exit] = await Promise.all([textOf(running.stdout), textOf(running.stderr), running.exit]);
  return { ...exit, out, err };
}

/** Runs a shell script as root of the image. */
export function shell(machine: Machine, script: string, request: Parameters<typeof ran>[2] = {}): Promise<Ran> {
  return ran(machine, ['sh', '-c', script], { user: 'root', ...request });
}

/** Runs a perl text as root of the image: for what shells have no command for. */
export function perl(machine: Machine, text: string, request: Parameters<typeof ran>[2] = {}): Promise<Ran> {
  return ran(machine, ['perl', '-e', text], { user: 'root', ...request });
}

export async function textOf(stream: NodeJS.ReadableStream): Promise<string> {
  const pieces: Buffer[] = [];
  for await (const piece of stream) pieces.push(Buffer.from(piece));
  return Buffer.concat(pieces).toString();
}

/** Expects of a value that it becomes what is said within 20 seconds. */
export function eventually<T>(get: () => T) {
  return expect.poll(get, { timeout: 20_000, interval: 30 });
}

/** Collects what a terminal shows, and waits until it shows something. */
export class Screen {
  text = '';

  constructor(running: Exec) {
    running.stdout.on('data', (piece: Buffer) => (this.text += piece.toString()));
  }
}

/**
 * A number of seconds that no other test file sleeps: the same tests look for processes of other backends beside these.
 */
export function ownSeconds(number: number): string {
  return `${number}.${process.pid}`;
}

/** Host processes one of whose arguments is this word. */
export async function processesWith(word: string): Promise<number[]> {
  const { stdout } = await run('ps', ['-eo', 'pid=,args='], { keepBytes: 8 * MIB });
  return stdout
    .toString()
    .split('\n')
    .filter((line) => line.split(/\s+/).includes(word))
    .map((line) => Number.parseInt(line, 10));
}

/** The user and group ids of a host process, as the kernel counts them. */
export async function hostIds(pid: number): Promise<number[]> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return [...status.matchAll(/^(?:Uid|Gid):\s+(.*)$/gm)].flatMap(([, ids = '']) => ids.split('\t').map(Number));
}
