import { formatBytes, formatDuration, type OnEvent, type ProgressEvent, type Stage } from '@decant/core';

import { dim, green, interactive, printable, say, yellow } from './terminal.ts';

export const PROGRESS_MODES = ['auto', 'plain', 'json', 'none'] as const;
export type ProgressMode = (typeof PROGRESS_MODES)[number];

export interface ProgressRenderer {
  readonly onEvent: OnEvent;
  /** Clears what would be redrawn; call it before anything else is printed. */
  readonly end: () => void;
}

/** How progress is shown, always on standard error: redrawn lines on a terminal, plain lines, or NDJSON events. */
export function createProgress(mode: ProgressMode): ProgressRenderer {
  if (mode === 'none') return { onEvent: () => undefined, end: () => undefined };
  if (mode === 'json') return { onEvent: (event) => say(JSON.stringify(event)), end: () => undefined };
  return mode === 'auto' && interactive ? terminalProgress() : plainProgress();
}

const LABELS: Record<Stage, string> = {
  prepare: 'preparing',
  context: 'reading the context',
  build: 'building',
  layers: 'reading layers',
  layout: 'laying out the filesystem',
  upload: 'uploading what is new',
  admit: 'verifying and admitting',
  name: 'naming',
  fetch: 'fetching',
  verify: 'verifying chunks',
  export: 'writing the disk image',
};

function finished(event: Extract<ProgressEvent, { type: 'stage-finished' }>): string {
  const facts = [
    ...(event.message === undefined ? [] : [event.message]),
    ...(event.items === undefined ? [] : [`${event.items.toLocaleString('en')} items`]),
    ...(event.bytes === undefined ? [] : [formatBytes(event.bytes)]),
    ...(event.bytes !== undefined && event.bytes > 0 && event.elapsedMs >= 50
      ? [`${formatBytes((event.bytes / event.elapsedMs) * 1000)}/s`]
      : []),
    formatDuration(event.elapsedMs),
  ];
  return `${LABELS[event.stage]}: ${facts.join(', ')}`;
}

function common(event: ProgressEvent): string | undefined {
  switch (event.type) {
    case 'stage-finished':
      return `${green('✓')} ${printable(finished(event))}`;
    case 'log':
      return dim(`  │ ${printable(event.line)}`);
    case 'warning':
      return yellow(`! ${printable(event.message)}${event.hint === undefined ? '' : ` ${printable(event.hint)}`}`);
    default:
      return undefined;
  }
}

function plainProgress(): ProgressRenderer {
  const onEvent: OnEvent = (event) => {
    const line = common(event);
    if (line !== undefined) say(line);
    else if (event.type === 'stage-started') {
      say(dim(`· ${LABELS[event.stage]}${event.message === undefined ? '' : `: ${printable(event.message)}`}`));
    }
  };
  return { onEvent, end: () => undefined };
}

/** Milliseconds between two drawings of the same line. */
const REDRAW_MS = 100;

function terminalProgress(): ProgressRenderer {
  let shown = false;
  let lastDrawn = 0;
  const started = new Map<Stage, number>();
  const clear = () => {
    if (shown) process.stderr.write('\r\u001B[2K');
    shown = false;
  };
  const draw = (text: string) => {
    const width = process.stderr.columns ?? 80;
    clear();
    process.stderr.write(dim(text.length >= width ? text.slice(0, width - 1) : text));
    shown = true;
  };
  const onEvent: OnEvent = (event) => {
    const line = common(event);
    if (line !== undefined) {
      clear();
      say(line);
      return;
    }
    const now = performance.now();
    if (event.type === 'stage-started') {
      started.set(event.stage, now);
      draw(`· ${LABELS[event.stage]}${event.message === undefined ? ' …' : `: ${printable(event.message)} …`}`);
    } else if (event.type === 'stage-progress' && now - lastDrawn >= REDRAW_MS) {
      lastDrawn = now;
      draw(`· ${LABELS[event.stage]}: ${running(event, now - (started.get(event.stage) ?? now))}`);
    }
  };
  return { onEvent, end: clear };
}

function running(event: Extract<ProgressEvent, { type: 'stage-progress' }>, elapsedMs: number): string {
  const facts: string[] = [];
  const { bytes, totalBytes, items, totalItems } = event;
  if (items !== undefined) facts.push(totalItems === undefined ? `${items} items` : `${items}/${totalItems} items`);
  if (bytes !== undefined) {
    facts.push(totalBytes === undefined ? formatBytes(bytes) : `${formatBytes(bytes)} of ${formatBytes(totalBytes)}`);
    if (elapsedMs > 500 && bytes > 0) {
      const rate = bytes / elapsedMs;
      facts.push(`${formatBytes(rate * 1000)}/s`);
      if (totalBytes !== undefined && totalBytes > bytes)
        facts.push(`${formatDuration((totalBytes - bytes) / rate)} left`);
    }
  }
  return facts.join(', ');
}
