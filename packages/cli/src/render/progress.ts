import { formatBytes, formatDuration, type OnEvent, type ProgressEvent, type Stage } from '@decant/core';

import type { ProgressMode } from '../progress-mode.ts';
import { printable, stderr, type Screen } from './terminal.ts';
import { cutText } from './text-width.ts';

export interface ProgressRenderer {
  readonly onEvent: OnEvent;
  /** Clears what would be drawn again and stops drawing; call it before anything else is printed. */
  readonly end: () => void;
}

export interface ProgressOptions {
  /** Shown on a terminal only, and gone when it is over; warnings stay. */
  readonly transient?: boolean;
  readonly screen?: Screen;
  /** Milliseconds on a clock that only goes forward. */
  readonly now?: () => number;
}

/** How progress is shown, always on standard error: redrawn lines on a terminal, plain lines, or NDJSON events. */
export function createProgress(mode: ProgressMode, options: ProgressOptions = {}): ProgressRenderer {
  const { transient = false, screen = stderr, now = () => performance.now() } = options;
  if (mode === 'none') return { onEvent: () => undefined, end: () => undefined };
  if (mode === 'json') {
    return { onEvent: (event) => screen.write(`${JSON.stringify(event)}\n`), end: () => undefined };
  }
  if (mode === 'auto' && screen.redraws) return terminalProgress(screen, now, transient);
  return plainProgress(screen, now, transient && mode === 'auto');
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
  diff: 'comparing',
};

type Facts = Partial<Record<'bytes' | 'totalBytes' | 'items' | 'totalItems', number>>;

/** A stage that has begun and not ended. */
interface Running {
  readonly startedMs: number;
  readonly message: string | undefined;
  facts: Facts;
}

/** Elapsed milliseconds below which a rate says nothing. */
const RATE_FROM_MS = 500;

function rate(bytes: number, elapsedMs: number): string[] {
  return bytes > 0 && elapsedMs >= RATE_FROM_MS ? [`${formatBytes((bytes / elapsedMs) * 1000)}/s`] : [];
}

const count = (items: number) => items.toLocaleString('en');

function finishedLine(event: Extract<ProgressEvent, { type: 'stage-finished' }>): string {
  const { stage, message, items, bytes, elapsedMs } = event;
  const facts = [
    ...(message === undefined ? [] : [message]),
    ...(items === undefined ? [] : [`${count(items)} ${items === 1 ? 'item' : 'items'}`]),
    ...(bytes === undefined ? [] : [formatBytes(bytes), ...rate(bytes, elapsedMs)]),
    formatDuration(elapsedMs),
  ];
  return `${LABELS[stage]}: ${facts.join(', ')}`;
}

function runningLine(stage: Stage, { startedMs, message, facts }: Running, nowMs: number): string {
  const elapsedMs = nowMs - startedMs;
  const parts: string[] = message === undefined ? [] : [message];
  if (facts.items !== undefined) {
    const of = facts.totalItems === undefined ? '' : `/${count(facts.totalItems)}`;
    parts.push(`${count(facts.items)}${of} items`);
  }
  if (facts.bytes !== undefined) {
    const { bytes, totalBytes } = facts;
    parts.push(totalBytes === undefined ? formatBytes(bytes) : `${formatBytes(bytes)} of ${formatBytes(totalBytes)}`);
    parts.push(...rate(bytes, elapsedMs));
    if (totalBytes !== undefined && totalBytes > bytes && bytes > 0 && elapsedMs >= RATE_FROM_MS) {
      parts.push(`${formatDuration(((totalBytes - bytes) / bytes) * elapsedMs)} left`);
    }
  }
  if (facts.items === undefined && facts.bytes === undefined && elapsedMs >= 1000)
    parts.push(formatDuration(Math.floor(elapsedMs / 1000) * 1000));
  return `${LABELS[stage]}${parts.length === 0 ? ' …' : `: ${parts.join(', ')}`}`;
}

/** What stays on the screen of an event, without control characters; undefined when nothing does. */
function lastingLine(event: ProgressEvent, { style }: Screen, columns = Number.POSITIVE_INFINITY): string | undefined {
  switch (event.type) {
    case 'stage-finished':
      return `${style.green('✓')} ${cutText(printable(finishedLine(event)), columns - 2)}`;
    case 'log': {
      // Programs that redraw a line end it with a carriage return; the last drawing is what counts.
      const shown = event.line.split('\r').findLast((part) => part.trim() !== '') ?? '';
      return style.dim(`  │ ${cutText(printable(shown), columns - 4)}`);
    }
    case 'warning':
      return style.yellow(
        `! ${printable(event.message)}${event.hint === undefined ? '' : ` ${printable(event.hint)}`}`,
      );
    default:
      return undefined;
  }
}

/** What was counted, and what is known of the whole. */
function factsOf({ bytes, totalBytes, items, totalItems }: Facts): Facts {
  return {
    ...(bytes === undefined ? {} : { bytes }),
    ...(totalBytes === undefined ? {} : { totalBytes }),
    ...(items === undefined ? {} : { items }),
    ...(totalItems === undefined ? {} : { totalItems }),
  };
}

/** Keeps the table of running stages. What an event does not say stays as it was. */
function follow(running: Map<Stage, Running>, event: ProgressEvent, nowMs: number): void {
  if (event.type === 'stage-started') {
    running.delete(event.stage);
    running.set(event.stage, { startedMs: nowMs, message: event.message, facts: factsOf(event) });
  } else if (event.type === 'stage-progress') {
    const stage = running.get(event.stage);
    if (stage !== undefined) stage.facts = { ...stage.facts, ...factsOf(event) };
  } else if (event.type === 'stage-finished') {
    running.delete(event.stage);
  }
}

/** Milliseconds between two plain lines about the same stage. */
const PLAIN_EVERY_MS = 10_000;

function plainProgress(screen: Screen, now: () => number, onlyWarnings: boolean): ProgressRenderer {
  const running = new Map<Stage, Running>();
  let saidMs = 0;
  const say = (line: string) => {
    saidMs = now();
    screen.write(`${line}\n`);
  };
  const onEvent: OnEvent = (event) => {
    if (onlyWarnings && event.type !== 'warning') return;
    follow(running, event, now());
    const line = lastingLine(event, screen);
    const stage = running.get(event.stage);
    if (line !== undefined) say(line);
    else if (stage !== undefined && (event.type === 'stage-started' || now() - saidMs >= PLAIN_EVERY_MS)) {
      say(`· ${printable(runningLine(event.stage, stage, now()))}`);
    }
  };
  return { onEvent, end: () => undefined };
}

/** Milliseconds between two drawings. */
const REDRAW_MS = 200;
const CLEAR_LINE = '\r\u001B[2K';

function terminalProgress(screen: Screen, now: () => number, transient: boolean): ProgressRenderer {
  const running = new Map<Stage, Running>();
  let drawn = '';
  let drawnMs = Number.NEGATIVE_INFINITY;
  let timer: NodeJS.Timeout | undefined;
  const clear = () => {
    if (drawn !== '') screen.write(CLEAR_LINE);
    drawn = '';
  };
  const draw = () => {
    const last = [...running].at(-1);
    if (last === undefined) {
      clear();
      return;
    }
    // One column stays free: a terminal that wraps at its last one would leave the line behind.
    const text = cutText(`· ${printable(runningLine(last[0], last[1], now()))}`, screen.columns() - 1);
    drawnMs = now();
    if (text === drawn) return;
    screen.write(`${drawn === '' ? '' : CLEAR_LINE}${screen.style.dim(text)}`);
    drawn = text;
  };
  const end = () => {
    clearInterval(timer);
    timer = undefined;
    running.clear();
    clear();
  };
  const onEvent: OnEvent = (event) => {
    follow(running, event, now());
    // Time passes on the screen when nothing else happens, too.
    timer ??= setInterval(draw, REDRAW_MS).unref();
    if (event.type === 'stage-progress' && now() - drawnMs < REDRAW_MS) return;
    const line = transient && event.type !== 'warning' ? undefined : lastingLine(event, screen, screen.columns() - 1);
    if (line !== undefined) {
      clear();
      screen.write(`${line}\n`);
    }
    draw();
  };
  return { onEvent, end };
}
