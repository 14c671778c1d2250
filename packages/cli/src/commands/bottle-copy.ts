import { stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { basename as insideName } from 'node:path/posix';

import { DecantError, errnoOf, quote } from '@decant/core';

import { invokeWired } from '../invoke.ts';
import type { CommonOptions } from '../options.ts';
import { printJson, say } from '../render/terminal.ts';

/** One end of a copy: a path here, or a path in a bottle. */
export type CopyEnd = { readonly path: string } | { readonly bottle: string; readonly path: string };

/**
 * `BOTTLE:PATH`, else a path here; one that looks like the former is written with `./` or `/` before it, as docker has
 * it. @throws USAGE for an empty path
 */
export function copyEndOf(text: string): CopyEnd {
  const [, bottle, inside] = /^([a-z0-9][a-z0-9-]*):(.*)$/s.exec(text) ?? [];
  const path = bottle === undefined ? text : (inside ?? '');
  if (path === '') {
    throw new DecantError('USAGE', `There is no path in ${quote(text)}.`, {
      hint: 'Write BOTTLE:PATH, or a path here.',
    });
  }
  return bottle === undefined ? { path } : { bottle, path: path.startsWith('/') ? path : `/${path}` };
}

export function copyAction(from: string, to: string, options: CommonOptions): Promise<void> {
  return invokeWired(options, async ({ decant, signal }) => {
    const source = copyEndOf(from);
    const target = copyEndOf(to);
    if ('bottle' in source === 'bottle' in target) {
      throw new DecantError('USAGE', 'Exactly one of the two ends of a copy is in a bottle.', {
        hint: 'Write: decant bottle cp FILE BOTTLE:PATH, or decant bottle cp BOTTLE:PATH FILE',
      });
    }
    let written = to;
    if ('bottle' in target) {
      await decant.bottles.copyIn(
        { slug: target.bottle, source: resolve(source.path), target: target.path },
        { signal },
      );
    } else if ('bottle' in source) {
      written = await freePath(target.path, insideName(source.path));
      await decant.bottles.copyOut({ slug: source.bottle, source: source.path, target: written }, { signal });
    }
    if (options.json === true) printJson({ source: from, destination: written });
    else say(`copied ${from} to ${written}`);
  });
}

/** Where the copy goes: below a directory that exists, else to that path. @throws CONFLICT when something is there */
async function freePath(path: string, name: string): Promise<string> {
  const target = resolve(path);
  const kind = await kindOf(target);
  if (kind === 'none') {
    if (!path.endsWith('/')) return target;
    throw new DecantError('USAGE', `There is no directory ${quote(path)}.`, { hint: 'Make it first.' });
  }
  const below = join(target, basename(name));
  if (kind === 'directory' && name !== '' && name !== '.' && name !== '..' && (await kindOf(below)) === 'none') {
    return below;
  }
  throw new DecantError('CONFLICT', `${quote(kind === 'directory' ? below : target)} exists.`, {
    hint: 'Nothing here is overwritten by what a bottle gives: remove it first, or copy to another path.',
  });
}

async function kindOf(path: string): Promise<'none' | 'directory' | 'other'> {
  try {
    return (await stat(path)).isDirectory() ? 'directory' : 'other';
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return 'none';
    throw error;
  }
}
