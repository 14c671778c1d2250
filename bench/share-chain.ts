import { mkdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { run } from '@decant/core/node';

import { ROOT } from '../scripts/workspace.ts';
import { interleaved, usageOf } from './measure.ts';
import { makeErofs } from './share-peers.ts';

const TIMEOUT_MS = 20 * 60_000;

/** An OCI layout of one layer, kept beside the archive it is made of. */
export async function layoutOf(archive: string): Promise<string> {
  const layout = archive.replace(/\.tar$/, '.oci');
  if ((await stat(layout).catch(() => undefined)) !== undefined) return layout;
  const partial = `${layout}.${process.pid}`;
  try {
    await run('umoci', ['init', '--layout', partial], { timeoutMs: TIMEOUT_MS });
    await run('umoci', ['new', '--image', `${partial}:latest`], { timeoutMs: TIMEOUT_MS });
    await run('umoci', ['raw', 'add-layer', '--image', `${partial}:latest`, archive], { timeoutMs: TIMEOUT_MS });
    await run('mv', [partial, layout], { timeoutMs: TIMEOUT_MS });
  } finally {
    await rm(partial, { recursive: true, force: true });
  }
  return layout;
}

export interface ChainComparison {
  /** Wall time of our import, until the image is admitted, ÷ that of the tools. */
  readonly ratio: number;
  readonly peakMb: number;
  readonly importSeconds: number;
  readonly toolsSeconds: number;
}

/** The same image once through `decant image import` and once through skopeo, umoci, mkfs.erofs and zstd. */
export async function compareChain(layout: string, folder: string, rounds: number): Promise<ChainComparison> {
  // As it is installed: from sources, its compiler would be measured too.
  await run('pnpm', ['--filter', '@decant/cli...', 'build'], { cwd: ROOT, timeoutMs: TIMEOUT_MS });
  const program = [process.execPath, join(ROOT, 'packages/cli/bin/decant.cjs')];
  let peakMb = 0;
  const fresh = async (name: string) => {
    const path = join(folder, name);
    await rm(path, { recursive: true, force: true });
    await mkdir(path, { recursive: true });
    return path;
  };
  const samples = await interleaved(
    { least: rounds, most: rounds },
    {
      own: async () => {
        const home = await fresh('home');
        const command = [...program, 'image', 'import', `oci:${layout}`, '--streaming', '-n', 'bench', '--json'];
        const usage = await usageOf(command, { DECANT_HOME: home });
        peakMb = Math.max(peakMb, usage.peakMb);
        return usage.wallSeconds;
      },
      tools: async () => {
        const work = await fresh('tools');
        const started = performance.now();
        const copy = join(work, 'copy');
        const image = join(work, 'image.erofs');
        await run('skopeo', ['copy', '--quiet', '--insecure-policy', `oci:${layout}:latest`, `oci:${copy}:latest`], {
          timeoutMs: TIMEOUT_MS,
        });
        await run('umoci', ['unpack', '--image', `${copy}:latest`, join(work, 'bundle')], { timeoutMs: TIMEOUT_MS });
        await makeErofs(join(work, 'bundle/rootfs'), image);
        await run('zstd', ['-q', '-1', image, '-o', `${image}.zst`], { timeoutMs: TIMEOUT_MS });
        return (performance.now() - started) / 1000;
      },
    },
  );
  await rm(join(folder, 'home'), { recursive: true, force: true });
  await rm(join(folder, 'tools'), { recursive: true, force: true });
  const importSeconds = samples.median('own');
  const toolsSeconds = samples.median('tools');
  return { ratio: importSeconds / toolsSeconds, peakMb, importSeconds, toolsSeconds };
}
