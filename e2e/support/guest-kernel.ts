import { copyFile, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';

import { run, type RunOptions, type RunResult } from '../../packages/core/src/node/index.ts';

/** What a guest needs to find its root disk and mount it; what these need in turn is found in them. */
const MODULES = ['virtio_pci', 'virtio_blk', 'erofs'];
const META_PACKAGE = 'linux-image-cloud-amd64';

export interface GuestKernel {
  readonly kernel: string;
  /** In the order in which they are loaded. */
  readonly modules: readonly string[];
}

/** Debian's kernel for virtual machines, from this machine's own package sources, kept in `cacheFolder`. */
export async function guestKernel(cacheFolder: string): Promise<GuestKernel> {
  const depends = await output('apt-cache', ['depends', '--important', META_PACKAGE]);
  const packageName = /Depends: (linux-image-[0-9][^\s]*)/.exec(depends)?.[1];
  if (packageName === undefined) throw new Error(`no package is known as ${META_PACKAGE}: ${depends}`);
  const folder = join(cacheFolder, `kernel-${packageName}`);
  if ((await stat(folder).catch(() => undefined)) === undefined) {
    const partial = `${folder}.${process.pid}`;
    try {
      await download(packageName, partial);
      await rename(partial, folder);
    } finally {
      await rm(partial, { recursive: true, force: true });
    }
  }
  const modules = (await readdir(folder)).filter((name) => name.endsWith('.ko')).sort();
  return { kernel: join(folder, 'vmlinuz'), modules: modules.map((name) => join(folder, name)) };
}

async function download(packageName: string, folder: string): Promise<void> {
  const work = join(folder, 'work');
  await mkdir(work, { recursive: true });
  const get = ['-o', 'APT::Sandbox::User=root', '-qq', 'download', packageName];
  await tool('apt-get', get, { cwd: work, timeoutMs: 300_000 });
  const [archive = ''] = await readdir(work);
  await tool('dpkg-deb', ['--extract', archive, 'tree'], { cwd: work });
  const boot = join(work, 'tree/boot');
  const kernel = (await readdir(boot)).find((name) => name.startsWith('vmlinuz-'));
  if (kernel === undefined) throw new Error(`${packageName} holds no kernel`);
  await copyFile(join(boot, kernel), join(folder, 'vmlinuz'));
  const paths = (await output('find', [join(work, 'tree'), '-name', '*.ko*'])).split('\n');
  const loaded = new Set<string>();
  const load = async (name: string): Promise<void> => {
    if (loaded.has(name)) return;
    loaded.add(name);
    const path = paths.find((known) => nameOf(known) === name);
    // What is built into the kernel is no file.
    if (path === undefined) return;
    const bytes = await readModule(path);
    const depends = /\0depends=([^\0]*)\0/.exec(bytes.toString('latin1'))?.[1] ?? '';
    for (const other of depends.split(',').filter((text) => text !== '')) await load(other.replaceAll('-', '_'));
    const number = String((await readdir(folder)).length).padStart(2, '0');
    await writeFile(join(folder, `${number}-${name}.ko`), bytes);
  };
  for (const name of MODULES) await load(name);
  await rm(work, { recursive: true });
}

function nameOf(path: string): string {
  return basename(path)
    .replace(/\.ko(?:\.xz|\.zst)?$/, '')
    .replaceAll('-', '_');
}

async function readModule(path: string): Promise<Buffer> {
  if (path.endsWith('.ko')) return readFile(path);
  return (await tool(path.endsWith('.xz') ? 'xz' : 'zstd', ['-dc', path], { keepBytes: 2 ** 26 })).stdout;
}

// Not those of programs.ts, which only exist while tests run: benchmarks boot this kernel, too.
function tool(command: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return run(command, args, { timeoutMs: 120_000, ...options });
}

async function output(command: string, args: readonly string[]): Promise<string> {
  return (await tool(command, args)).stdout.toString('utf8');
}
