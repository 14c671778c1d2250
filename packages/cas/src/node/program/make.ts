import { copyFile, rename, rm } from 'node:fs/promises';

import { DecantError, formatBytes } from '@decant/core';

import { makeFromFile } from '../make-from-file.ts';
import { print, required, wholeNumber } from './arguments.ts';
import type { Invocation } from './main.ts';

/** `make FILE --store DIR` */
export async function make(invocation: Invocation): Promise<void> {
  const { positionals, values, signal } = invocation;
  const output = values['output'];
  const made = await makeFromFile({
    file: positionals[0]!,
    store: required(invocation, 'store'),
    layout: 'foreign',
    workers: wholeNumber(invocation, 'workers', 1, 64),
    codec: values['level'] === 'raw' ? 'raw' : wholeNumber(invocation, 'level', 1, 19),
    fsync: values['fsync'] !== false,
    signal,
  });
  if (typeof output === 'string') await copyManifest(made.manifestFile, output);
  const { manifest, newChunks, newBytes, storedBytes } = made;
  const file = typeof output === 'string' ? output : made.manifestFile;
  const { id, virtualBytes, contentBytes, entryCount } = manifest;
  await print(
    invocation,
    { id, manifest: file, virtualBytes, contentBytes, entryCount, newChunks, newBytes, storedBytes },
    `${id}\n${formatBytes(virtualBytes)} of disk, ${formatBytes(contentBytes)} of them data in ${manifest.chunkCount} chunks; ` +
      `${newChunks} new: ${formatBytes(newBytes)}, stored in ${formatBytes(storedBytes)}\nmanifest: ${file}`,
  );
}

/** Beside the target and renamed, so that the target is never half a manifest. */
async function copyManifest(from: string, target: string): Promise<void> {
  const partial = `${target}.${process.pid}.partial`;
  try {
    await copyFile(from, partial);
    await rename(partial, target);
  } catch (cause) {
    await rm(partial, { force: true });
    throw new DecantError('USAGE', `The manifest cannot be written to ${JSON.stringify(target)}.`, {
      hint: `It is kept in the store, as ${from}.`,
      cause,
    });
  }
}
