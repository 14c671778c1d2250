import { formatBytes } from '@decant/core';

import { invokeWired } from '../invoke.ts';
import type { CommonOptions } from '../options.ts';
import { print, printJson, printTable, say } from '../render/terminal.ts';

export function listAction(options: CommonOptions): Promise<void> {
  return invokeWired(options, async ({ decant, signal }) => {
    const images = await decant.images.list({ signal });
    if (options.json === true) {
      printJson({
        images: images.map(({ name, tag, updatedAt, image }) => ({ ...image, name, tag, updatedAt })),
      });
      return;
    }
    if (images.length === 0) {
      say('There are no images yet. Make one with: decant image create --streaming CONTEXT');
      return;
    }
    printTable(
      ['NAME', 'TAG', 'FORMAT', 'ARCH', 'CONTENT', 'STORED', 'CHUNKS', 'UPDATED', 'ID'],
      images.map(({ name, tag, updatedAt, image }) => [
        name,
        tag,
        image.format,
        image.architecture ?? '-',
        formatBytes(image.contentBytes),
        formatBytes(image.storedBytes),
        image.chunks === null ? '-' : String(image.chunks),
        updatedAt.slice(0, 19).replace('T', ' '),
        image.id.slice(0, image.id.indexOf(':') + 13),
      ]),
    );
  });
}

export function inspectAction(ref: string, options: CommonOptions): Promise<void> {
  return invokeWired(options, async ({ decant, signal }) => {
    const { image, ...detail } = await decant.images.inspect(ref, { signal });
    const document = { ...image, ...detail };
    if (options.json === true) {
      printJson(document);
      return;
    }
    const rows: [string, string][] = [
      ['name', detail.name === null ? '-' : `${detail.name}:${detail.tag}`],
      ['id', image.id],
      ['format', `${image.format} (${image.filesystem}, ${image.layout})`],
      ['architecture', image.architecture ?? '-'],
      ['disk', formatBytes(image.virtualBytes)],
      ['content', formatBytes(image.contentBytes)],
      ['stored', formatBytes(image.storedBytes)],
      ['chunks', image.chunks === null ? '-' : String(image.chunks)],
      ['writable disk', detail.diskBytes === 0 ? 'not set' : formatBytes(detail.diskBytes)],
      ['created', image.createdAt],
    ];
    const run = detail.config?.config;
    if (run?.Entrypoint !== undefined) rows.push(['entrypoint', JSON.stringify(run.Entrypoint)]);
    if (run?.Cmd !== undefined) rows.push(['command', JSON.stringify(run.Cmd)]);
    if (run?.User !== undefined) rows.push(['user', run.User]);
    if (run?.WorkingDir !== undefined) rows.push(['working directory', run.WorkingDir]);
    for (const variable of run?.Env ?? []) rows.push(['environment', variable]);
    printTable([`IMAGE`, ref], rows);
  });
}

export function removeAction(names: readonly string[], options: CommonOptions): Promise<void> {
  return invokeWired(options, async ({ decant, signal }) => {
    for (const name of names) {
      await decant.images.remove(name, { signal });
      if (options.json !== true) say(`removed the name ${name}`);
    }
    if (options.json === true) printJson({ removed: names });
  });
}

export function tagAction(ref: string, name: string, options: CommonOptions): Promise<void> {
  return invokeWired(options, async ({ decant, signal }) => {
    const tagged = await decant.images.tag(ref, name, { signal });
    if (options.json === true) {
      printJson({ ...tagged.image, name: tagged.name, tag: tagged.tag, updatedAt: tagged.updatedAt });
    } else {
      print(`${tagged.name}:${tagged.tag}  ${tagged.image.id}`);
    }
  });
}

export function historyAction(name: string, options: CommonOptions): Promise<void> {
  return invokeWired(options, async ({ decant, signal }) => {
    const history = await decant.images.history(name, { signal });
    if (options.json === true) {
      printJson(history);
      return;
    }
    printTable(
      ['VERSION', 'SINCE', 'IMAGE'],
      history.versions.map(({ version, createdAt, imageId }) => [
        String(version),
        createdAt.slice(0, 19).replace('T', ' '),
        imageId ?? 'removed',
      ]),
    );
  });
}
