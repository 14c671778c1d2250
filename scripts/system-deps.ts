import { execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { parseArgs, promisify } from 'node:util';

export type DependencyGroup = 'demo' | 'test' | 'docs' | 'bench';

export interface SystemDependency {
  /** Name of the Debian package. */
  readonly name: string;
  /** What decant or its tests use it for. */
  readonly purpose: string;
  readonly groups: readonly DependencyGroup[];
}

/** The Debian packages that the commands of this repository use. To install, to build and for `docs` none is needed. */
export const SYSTEM_DEPENDENCIES: readonly SystemDependency[] = [
  { name: 'docker.io', purpose: 'build engine: dockerd with BuildKit inside', groups: ['demo', 'test', 'bench'] },
  { name: 'buildah', purpose: 'build engine without a daemon', groups: ['demo', 'test', 'bench'] },
  { name: 'podman', purpose: 'build engine without a daemon, and containers', groups: ['test'] },
  { name: 'runc', purpose: 'runs the steps of a build', groups: ['demo', 'test', 'bench'] },
  { name: 'uidmap', purpose: 'user id ranges for builds and sandboxes', groups: ['demo', 'test', 'bench'] },
  { name: 'mmdebstrap', purpose: 'a Debian base image from the package mirror', groups: ['demo', 'test', 'bench'] },
  { name: 'erofs-utils', purpose: 'fsck.erofs judges the images we write', groups: ['demo', 'test', 'bench'] },
  { name: 'e2fsprogs', purpose: 'ext4 images: mkfs.ext4, debugfs, e2fsck', groups: ['demo', 'test', 'bench'] },
  {
    name: 'libnbd-bin',
    purpose: 'nbdfuse mounts an image while it streams; nbdinfo and nbdcopy',
    groups: ['demo', 'test', 'bench'],
  },
  { name: 'fuse3', purpose: 'unmounting of nbdfuse', groups: ['demo', 'test', 'bench'] },
  { name: 'iproute2', purpose: 'the bridge of the private Docker daemon of tests', groups: ['test', 'bench'] },
  { name: 'procps', purpose: 'ps and pgrep: what is left behind', groups: ['test', 'bench'] },
  { name: 'bubblewrap', purpose: 'the sandbox of jail', groups: ['demo', 'test', 'bench'] },
  { name: 'umoci', purpose: 'another flattening of an OCI image, to compare with', groups: ['test', 'bench'] },
  { name: 'skopeo', purpose: 'converts images between formats, to compare with', groups: ['test', 'bench'] },
  { name: 'docker-registry', purpose: 'a registry with passwords', groups: ['test'] },
  { name: 'slirp4netns', purpose: 'the network of rootless builds', groups: ['test'] },
  { name: 'python3-requests', purpose: 'another client of the image-builder', groups: ['test'] },
  { name: 'openssl', purpose: 'an authority and certificates for servers of tests', groups: ['test', 'bench'] },
  {
    name: 'python3',
    purpose: 'the attacks from within bottles, and what the C library reads as an address',
    groups: ['test'],
  },
  { name: 'tmux', purpose: 'a real terminal', groups: ['test'] },
  { name: 'chromium', purpose: 'runs the chunking core in a browser', groups: ['test'] },
  { name: 'qemu-system-x86', purpose: 'boots a guest from the block device', groups: ['test', 'bench'] },
  { name: 'qemu-utils', purpose: 'qemu-img reads the block device', groups: ['test'] },
  { name: 'busybox-static', purpose: 'a root filesystem of one file', groups: ['test', 'bench'] },
  { name: 'attr', purpose: 'setfattr for trees with extended attributes', groups: ['test'] },
  { name: 'acl', purpose: 'setfacl for trees with access lists', groups: ['test'] },
  { name: 'cpio', purpose: 'the initial RAM disk of the guest', groups: ['test', 'bench'] },
  { name: 'zstd', purpose: 'another zstd, to compare with', groups: ['test', 'bench'] },
  { name: 'xz-utils', purpose: 'archives with xz', groups: ['test'] },
  { name: 'curl', purpose: 'a client behind the fence of a bottle', groups: ['test', 'bench'] },
  { name: 'git', purpose: 'a client behind the fence of a bottle', groups: ['test'] },
  { name: 'python3-pip', purpose: 'a client behind the fence of a bottle', groups: ['test'] },
  { name: 'cargo', purpose: 'a client behind the fence of a bottle', groups: ['test'] },
  { name: 'casync', purpose: 'chunks disk images, to compare with', groups: ['bench'] },
  { name: 'restic', purpose: 'chunks and stores files, to compare with', groups: ['bench'] },
  { name: 'time', purpose: 'processor time and memory of a program', groups: ['bench'] },
];

export interface EnsureOptions {
  readonly groups: readonly DependencyGroup[];
  /** Install without asking, also at a terminal; default false. */
  readonly yes?: boolean | undefined;
  /** Lines for the reader; default: standard error. */
  readonly log?: ((line: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface EnsureResult {
  /** Packages that are still missing when the call returns. */
  readonly missing: readonly string[];
  readonly installed: readonly string[];
  /** The one command that installs what is still missing, or undefined. */
  readonly command: string | undefined;
}

const INSTALL_TIMEOUT_MS = 15 * 60_000;
const UPDATE_TIMEOUT_MS = 3 * 60_000;

/**
 * Installs the packages of the groups that are missing, when this is a Debian-family system, the user is root,
 * and nobody sits at a terminal to be asked (or `yes` is set). Otherwise, and when the install fails, it says what
 * is missing and the command that installs it; it never throws for a missing package. One `dpkg-query` when all is there.
 */
export async function ensureSystemDependencies(options: EnsureOptions): Promise<EnsureResult> {
  const { groups, yes = false, signal } = options;
  const log = options.log ?? ((line: string) => console.error(line));
  const wanted = SYSTEM_DEPENDENCIES.filter((entry) => entry.groups.some((group) => groups.includes(group)));
  if (!existsSync('/usr/bin/dpkg-query') || !existsSync('/usr/bin/apt-get')) {
    log(`Not a Debian-family system: install by its own means what is missing of ${namesOf(wanted)}.`);
    return { missing: [], installed: [], command: undefined };
  }
  const missing = await missingOf(wanted, signal);
  if (missing.length === 0) return { missing: [], installed: [], command: undefined };
  const root = process.getuid?.() === 0;
  const terminal = process.stdin.isTTY && process.stdout.isTTY;
  const command = `${root ? '' : 'sudo '}apt-get install -y --no-install-recommends ${missing.map((entry) => entry.name).join(' ')}`;
  for (const { name, purpose } of missing) log(`missing: ${name} (${purpose})`);
  if (!root || (terminal && !yes)) {
    log(`Install them with: ${command}`);
    return { missing: missing.map((entry) => entry.name), installed: [], command };
  }
  log(`Installing ${missing.length} Debian packages…`);
  const failure = await install(
    missing.map((entry) => entry.name),
    log,
    signal,
  );
  const still = await missingOf(missing, signal);
  const installed = missing.filter((entry) => !still.includes(entry)).map((entry) => entry.name);
  if (still.length === 0) return { missing: [], installed, command: undefined };
  log(`Not installed: ${namesOf(still)}${failure === undefined ? '' : ` (${failure})`}.`);
  return { missing: still.map((entry) => entry.name), installed, command };
}

const namesOf = (entries: readonly SystemDependency[]) => entries.map((entry) => entry.name).join(', ');

async function missingOf(
  wanted: readonly SystemDependency[],
  signal: AbortSignal | undefined,
): Promise<readonly SystemDependency[]> {
  const names = wanted.map((entry) => entry.name);
  if (names.length === 0) return [];
  // It ends with status 1 when a name is unknown, and lists the others all the same.
  const output = await promisify(execFile)(
    'dpkg-query',
    ['--show', '--showformat=${binary:Package} ${db:Status-Status}\n', ...names],
    { timeout: 30_000, signal },
  ).then(
    ({ stdout }) => stdout,
    (error: { stdout?: string }) => {
      signal?.throwIfAborted();
      return error.stdout ?? '';
    },
  );
  const present = new Set(
    output
      .split('\n')
      .map((line) => line.split(' '))
      .filter(([, status]) => status === 'installed')
      .map(([name = '']) => name.replace(/:.*/, '')),
  );
  return wanted.filter((entry) => !present.has(entry.name));
}

/** Undefined, or what went wrong in a few words. */
async function install(
  names: readonly string[],
  log: (line: string) => void,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  const options = ['-o', 'Acquire::Retries=3', '-o', 'Acquire::http::Timeout=30', '-o', 'DPkg::Lock::Timeout=300'];
  // A failed update is no reason to give up: the lists that are there may do.
  await aptGet([...options, '-qq', 'update'], UPDATE_TIMEOUT_MS, log, signal);
  const args = [...options, '-qq', 'install', '-y', '--no-install-recommends'];
  const all = await aptGet([...args, ...names], INSTALL_TIMEOUT_MS, log, signal);
  if (all === undefined) return undefined;
  // One package that this release does not have must not keep the others away.
  log(`Trying one by one: ${all}.`);
  let failure: string | undefined;
  for (const name of names) failure = (await aptGet([...args, name], INSTALL_TIMEOUT_MS, log, signal)) ?? failure;
  return failure;
}

/** Runs apt-get; shows its output only when it fails. */
function aptGet(
  args: readonly string[],
  timeoutMs: number,
  log: (line: string) => void,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const child = spawn('apt-get', args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8' },
      timeout: timeoutMs,
      signal,
    });
    let kept = '';
    const keep = (data: Buffer) => {
      kept = (kept + data.toString('utf8')).slice(-4000);
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    child.once('error', (error) => {
      if (signal?.aborted === true) reject(signal.reason as Error);
      else resolve(error.message);
    });
    child.once('close', (code, signalName) => {
      if (code === 0) {
        resolve(undefined);
        return;
      }
      log(kept.trimEnd());
      resolve(`apt-get ended with ${code === null ? signalName : `status ${code}`}`);
    });
  });
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { yes: { type: 'boolean' } } });
  const groups = positionals.length === 0 ? ['demo', 'test', 'docs'] : positionals;
  const known = groups.filter((group): group is DependencyGroup => ['demo', 'test', 'docs', 'bench'].includes(group));
  if (known.length !== groups.length) {
    console.error('usage: node scripts/system-deps.ts [--yes] [demo] [test] [docs] [bench]');
    process.exitCode = 2;
  } else {
    const { missing } = await ensureSystemDependencies({ groups: known, yes: values.yes });
    if (missing.length > 0) process.exitCode = 1;
    else console.log(`All Debian packages for ${known.join(', ')} are installed.`);
  }
}
