import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { isDecantError } from '@decant/core';
import { afterEach, beforeEach, expect, it } from 'vitest';

import { openDockerArchive } from './docker-archive.ts';
import { openOciLayout } from './layout.ts';
import type { OciLimits } from './limits.ts';
import { readPlainArchive } from './plain-archive.ts';
import { readTar } from './tar-reader.ts';
import { LayoutMaker, type LayerForm } from './testing/make-layout.ts';
import { makeTar } from './testing/make-tar.ts';
import { gather, inPieces } from './testing/streams.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'limits-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const LAYER = makeTar([{ path: 'a', data: Buffer.alloc(100_000, 'text ') }]);

async function unpack(form: LayerForm, limits: Partial<OciLimits>): Promise<void> {
  const maker = new LayoutMaker(join(directory, 'layout'));
  await maker.image({ layers: [LAYER, LAYER], form, tag: 'v1' });
  await using image = await openOciLayout(await maker.finish(), { limits });
  for (const layer of image.layers) await gather(layer.open());
}

async function archive(limits: Partial<OciLimits>): Promise<void> {
  const path = join(directory, 'a.tar');
  await writeFile(path, makeTar(['a', 'b', 'c'].map((name) => ({ path: name, data: name }))));
  await (await openDockerArchive(path, { limits }))[Symbol.asyncDispose]();
}

async function plain(limits: Partial<OciLimits>): Promise<void> {
  const path = join(directory, 'a.tar');
  await writeFile(path, LAYER);
  await gather(readPlainArchive(path, { limits }));
}

const long = makeTar([{ path: 'a', pax: [['comment', 'x'.repeat(5000)]], data: '' }]);
const cases: readonly [string, number, (limits: Record<string, number>) => Promise<unknown>][] = [
  ['documentBytes', 100, (limits) => unpack('gzip', limits)],
  ['layers', 1, (limits) => unpack('gzip', limits)],
  ['layerBytes', 1000, (limits) => unpack('gzip', limits)],
  ['layerBytes', 1000, (limits) => unpack('plain', limits)],
  ['layerBytes', 1000, plain],
  ['zstdWindowBytes', 1000, (limits) => unpack('zstd', limits)],
  ['archiveMembers', 2, archive],
  ['metadataBytes', 1000, async (limits) => gather(entries(long, limits))],
];

async function* entries(tar: Uint8Array, limits: Record<string, number>): AsyncGenerator<Uint8Array> {
  for await (const _ of readTar(inPieces(tar), { limits })) yield new Uint8Array();
}

it.each(cases)('an error of %s at %i says which limit it is and how to raise it', async (name, value, action) => {
  const error = await action({ [name]: value }).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!isDecantError(error, 'LIMIT_EXCEEDED')) throw new Error(`not a limit: ${String(error)}`);
  expect(error.details).toMatchObject({ limit: value, limitName: name });
  expect(error.hint).toContain(`--limit ${name}=NUMBER`);
  await action({ [name]: 1_000_000_000 }).catch((reason: unknown) => {
    // Raised, it is no longer what is at fault.
    if (isDecantError(reason, 'LIMIT_EXCEEDED')) throw reason;
  });
});
