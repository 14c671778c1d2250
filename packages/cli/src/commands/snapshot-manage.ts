import { formatBytes, formatDuration, type Snapshot } from '@decant/core';
import { buildSettings } from '@decant/sdk';

import { invokeWired } from '../invoke.ts';
import type { CommonOptions } from '../options.ts';
import { print, printJson, printTable, say } from '../render/terminal.ts';
import { buildArgsOf, formatOf } from './image-create.ts';
import { pageLimitOf, tagsOf, ttlOf } from './page-options.ts';

export interface CreateSnapshotOptions extends CommonOptions {
  readonly image?: string;
  readonly file?: string;
  readonly name?: string;
  readonly alias?: readonly string[];
  readonly tag?: readonly string[];
  readonly ttl?: string;
  readonly streaming?: boolean;
  readonly buildArg?: readonly string[];
  readonly target?: string;
  readonly platform?: string;
  readonly cacheKey?: string;
  readonly local?: boolean;
  readonly ci?: boolean;
}

export function createAction(context: string | undefined, options: CreateSnapshotOptions): Promise<void> {
  const progress = options.ci === true && options.progress === 'auto' ? 'plain' : options.progress;
  return invokeWired({ ...options, ...(progress === undefined ? {} : { progress }) }, async (invocation) => {
    const { decant, signal } = invocation;
    const { local, architecture } = buildSettings();
    const { snapshot, aliases } = await decant.snapshots.create(
      {
        context,
        image: options.image,
        dockerfile: options.file,
        name: options.name,
        aliases: options.alias,
        tags: tagsOf(options.tag),
        ttl: ttlOf(options.ttl),
        format: formatOf(options),
        buildArgs: buildArgsOf(options.buildArg),
        target: options.target,
        platform: options.platform,
        cacheKey: options.cacheKey,
        local: options.local === true || local,
        architecture,
      },
      { onEvent: invocation.progress.onEvent, signal },
    );
    invocation.progress.end();
    if (options.json === true) {
      printJson({ ...snapshot, aliases });
      return;
    }
    if (options.ci !== true) {
      for (const alias of aliases) say(`@${alias} points at it`);
      if (snapshot.image_id !== undefined) say(`image ${snapshot.image_id}, ${formatBytes(snapshot.byte_size)}`);
    }
    print(snapshot.id);
  });
}

export interface ListSnapshotOptions extends CommonOptions {
  readonly limit: string;
  readonly cursor?: string;
  readonly all?: boolean;
  readonly tag?: readonly string[];
  readonly excludeRetired?: boolean;
  readonly ci?: boolean;
}

/** Most pages that `--all` follows. */
const MOST_PAGES = 1000;

export function listAction(options: ListSnapshotOptions): Promise<void> {
  return invokeWired(options, async ({ decant, signal }) => {
    const limit = options.all === true ? 100 : pageLimitOf(options.limit);
    const tags = tagsOf(options.tag);
    const snapshots: Snapshot[] = [];
    let cursor: string | null | undefined = options.cursor;
    for (let page = 0; page === 0 || (options.all === true && cursor !== null && page < MOST_PAGES); page++) {
      const answer = await decant.snapshots.list(
        { limit, cursor: cursor ?? undefined, tags, excludeRetired: options.excludeRetired },
        { signal },
      );
      snapshots.push(...answer.snapshots);
      cursor = answer.nextCursor;
    }
    if (options.json === true) {
      printJson({ snapshots, nextCursor: cursor });
      return;
    }
    if (options.ci === true) for (const { id } of snapshots) print(id);
    else if (snapshots.length === 0) say('There are no snapshots.');
    else {
      printTable(
        ['ID', 'SIZE', 'FORMAT', 'ARCH', 'RETIRED', 'AGE', 'TAGS'],
        snapshots.map((snapshot) => [
          snapshot.id,
          formatBytes(snapshot.byte_size),
          snapshot.format ?? '-',
          snapshot.architecture ?? '-',
          snapshot.retired_at == null ? '-' : 'yes',
          formatDuration(Math.max(0, Math.round((Date.now() - Date.parse(snapshot.created_at)) / 1000) * 1000)),
          shownTags(snapshot.tags),
        ]),
      );
    }
    if (cursor !== null && cursor !== undefined) say(`more with --cursor ${cursor}`);
  });
}

export function getAction(ref: string, options: CommonOptions): Promise<void> {
  return invokeWired(options, async ({ decant, signal }) => {
    const snapshot = await decant.snapshots.get(ref, { signal });
    const aliases = (await decant.snapshots.aliases(snapshot.id, { signal })).map(({ alias }) => alias);
    if (options.json === true) {
      printJson({ ...snapshot, aliases });
      return;
    }
    printTable(
      ['SNAPSHOT', snapshot.id],
      [
        ['image', snapshot.image_id ?? '-'],
        ['name', snapshot.image_name ?? '-'],
        ['format', snapshot.format ?? '-'],
        ['architecture', snapshot.architecture ?? '-'],
        ['size', formatBytes(snapshot.byte_size)],
        ['aliases', aliases.length === 0 ? '-' : aliases.map((alias) => `@${alias}`).join(' ')],
        ['tags', shownTags(snapshot.tags)],
        ['time to live', snapshot.ttl == null ? '-' : `${snapshot.ttl} s`],
        ['created', snapshot.created_at],
        ['retired', snapshot.retired_at ?? '-'],
      ],
    );
  });
}

export function retireAction(ref: string, options: CommonOptions): Promise<void> {
  return invokeWired(options, async ({ decant, signal }) => {
    const snapshot = await decant.snapshots.retire(ref, { signal });
    if (options.json === true) printJson(snapshot);
    else say(`retired ${snapshot.id}`);
  });
}

export function aliasAction(ref: string, alias: string | undefined, options: CommonOptions): Promise<void> {
  return invokeWired(options, async ({ decant, signal }) => {
    if (alias !== undefined) await decant.snapshots.setAlias(ref, alias, { signal });
    const aliases = await decant.snapshots.aliases(ref, { signal });
    if (options.json === true) printJson({ aliases });
    else if (alias !== undefined) say(`@${alias} points at ${aliases[0]?.snapshot_id ?? ref}`);
    else for (const one of aliases) print(`@${one.alias}`);
  });
}

export function unaliasAction(alias: string, options: CommonOptions): Promise<void> {
  return invokeWired(options, async ({ decant, signal }) => {
    const name = alias.replace(/^@/, '');
    await decant.snapshots.removeAlias(name, { signal });
    if (options.json === true) printJson({ removed: name });
    else say(`removed the alias @${name}`);
  });
}

function shownTags(tags: Readonly<Record<string, string>>): string {
  const shown = Object.entries(tags).map(([key, value]) => `${key}=${value}`);
  return shown.length === 0 ? '-' : shown.join(' ');
}
