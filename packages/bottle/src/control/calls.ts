import { PassThrough, Readable, type Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

import { DecantError, errnoOf } from '@decant/core';

import { readAudit } from '../audit/audit-files.ts';
import type { Exec, ExecExit, ExecRequest } from '../backends/backend.ts';
import type { AgentLog } from './agent-log.ts';
import { STREAM, type Channel } from './channel.ts';
import type { Call, CallOf, ClientMessage } from './messages.ts';
import type { ControlTarget } from './server.ts';

/** One call that is being answered. */
export interface ActiveCall {
  /** What is sent to the client at the end. */
  readonly result: Promise<unknown>;
  onMessage?(message: ClientMessage): void;
  /** The call is about the end of the bottle, so it is not cut off by it. */
  readonly outlivesBottle?: boolean;
}

/** Begins to answer a call. The signal aborts when the client goes. */
export function answer(call: Call, channel: Channel, target: ControlTarget, signal: AbortSignal): ActiveCall {
  switch (call.call) {
    case 'info':
      return { result: target.info() };
    case 'exec':
      return answerExec(call, channel, target, signal);
    case 'attach':
      return answerAttach(call, channel, target, signal);
    case 'copy-in':
      return { result: target.copyIn(call.source, call.target, undefined, signal).then(() => null) };
    case 'copy-out':
      return { result: target.copyOut(call.source, call.target, undefined, signal).then(() => null) };
    case 'logs':
      return { result: sendLog(call, channel, target.agent.log, signal), outlivesBottle: true };
    case 'audit':
      return { result: sendAudit(target.auditFile, channel, signal) };
    case 'changes':
      return { result: sendChanges(target, channel, signal) };
    default:
      return { result: target.stop(call.timeoutMs).then(() => null), outlivesBottle: true };
  }
}

/** How long a stream that says nothing is waited for when the command itself has ended, milliseconds. */
const LAST_OUTPUT_MS = 500;

function answerExec(call: CallOf<'exec'>, channel: Channel, target: ControlTarget, signal: AbortSignal): ActiveCall {
  const { argv, env, user, workingDir, terminal, timeoutMs } = call;
  const stdin = call.stdin ? channel.incoming(STREAM.stdin) : undefined;
  const outputs = [channel.outgoing(STREAM.stdout), channel.outgoing(STREAM.stderr)] as const;
  const request: ExecRequest = { argv, env, user, workingDir, terminal, timeoutMs, signal };
  const starting = target.exec(request);
  const onMessage = (message: ClientMessage) => {
    void starting
      .then((exec) => obey(exec, message))
      // Of a command that has ended meanwhile.
      .catch(() => undefined);
  };
  const run = async (): Promise<ExecExit> => {
    const exec = await starting;
    channel.send({ type: 'started' });
    feed(exec, stdin);
    const moved = { atMs: performance.now() };
    const sent = [exec.stdout, exec.stderr].map((from, i) => sendCounting(from, outputs[i]!, moved));
    const exit = await exec.exit;
    await lastOutput(Promise.all(sent), moved, outputs, signal);
    return exit;
  };
  return { result: run(), onMessage };
}

function obey(on: Pick<Exec, 'signal' | 'resize'>, message: ClientMessage): Promise<void> {
  return message.type === 'signal'
    ? on.signal(message.name as NodeJS.Signals)
    : on.resize({ columns: message.columns, rows: message.rows });
}

function feed(exec: Exec, stdin: Readable | undefined): void {
  exec.stdin.on('error', () => stdin?.destroy());
  if (stdin === undefined) exec.stdin.end();
  else stdin.on('error', () => undefined).pipe(exec.stdin);
}

async function sendCounting(from: NodeJS.ReadableStream, to: Writable, moved: { atMs: number }): Promise<void> {
  const counting = new PassThrough();
  counting.on('data', () => (moved.atMs = performance.now()));
  // A stream that is cut off has ended; how the command ended is told by its exit.
  await pipeline(from, counting, to).catch(() => undefined);
}

/** Waits for the streams to end, unless something that the command left behind holds them and is silent. */
async function lastOutput(
  sent: Promise<unknown>,
  moved: { readonly atMs: number },
  outputs: readonly Writable[],
  signal: AbortSignal,
): Promise<void> {
  const state = { ended: false };
  void sent.then(() => (state.ended = true));
  const quiet = () =>
    performance.now() - moved.atMs >= LAST_OUTPUT_MS && outputs.every((to) => to.writableLength === 0);
  const since = performance.now();
  while (!state.ended && !signal.aborted && !(performance.now() - since >= LAST_OUTPUT_MS && quiet())) {
    await Promise.race([sent, new Promise((resolve) => setTimeout(resolve, 20))]);
  }
}

function answerAttach(
  call: CallOf<'attach'>,
  channel: Channel,
  { agent }: ControlTarget,
  signal: AbortSignal,
): ActiveCall {
  if (call.terminal !== undefined && !agent.terminal) {
    throw new DecantError('USAGE', 'The agent of this bottle has no terminal.', {
      hint: 'See its output with: decant bottle logs -f; or start the bottle with --tty.',
    });
  }
  const stdout = channel.outgoing(STREAM.stdout);
  const stderr = channel.outgoing(STREAM.stderr);
  const stdin = call.stdin ? channel.incoming(STREAM.stdin) : undefined;
  const onMessage = (message: ClientMessage) => void obey(agent, message).catch(() => undefined);
  const run = async (): Promise<ExecExit> => {
    channel.send({ type: 'started' });
    // What came before gives the screen its context; a program that draws is then asked to draw again.
    for await (const { bytes } of agent.log.read({ tailLines: call.terminal?.rows ?? 0 })) stdout.write(bytes);
    const gone = Promise.withResolvers<never>();
    const leave = agent.view({ stdout, stderr, onSlow: gone.reject });
    signal.addEventListener('abort', () => gone.reject(signal.reason), { once: true });
    try {
      if (call.terminal !== undefined) await agent.redraw(call.terminal);
      // Leaving ends what this client types, not what the agent reads.
      stdin?.pipe(agent.stdin, { end: false });
      const exit = await Promise.race([agent.ended.then(() => agent.exit), gone.promise]);
      await Promise.all([finished(stdout, signal), finished(stderr, signal)]);
      return exit;
    } finally {
      leave();
      stdin?.unpipe();
    }
  };
  return { result: run(), onMessage, outlivesBottle: true };
}

/** Ends a stream and waits until it has been sent. */
function finished(stream: Writable, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (stream.destroyed || signal.aborted) {
      resolve();
      return;
    }
    stream.once('close', () => resolve());
    stream.end(() => resolve());
  });
}

async function sendLog(call: CallOf<'logs'>, channel: Channel, log: AgentLog, signal: AbortSignal): Promise<null> {
  const outputs = { stdout: channel.outgoing(STREAM.stdout), stderr: channel.outgoing(STREAM.stderr) };
  channel.send({ type: 'started' });
  const { follow, tailLines } = call;
  for await (const { stream, bytes } of log.read({ follow, tailLines, signal })) {
    await written(outputs[stream], bytes);
  }
  await Promise.all([finished(outputs.stdout, signal), finished(outputs.stderr, signal)]);
  return null;
}

function written(to: Writable, bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    to.write(bytes, (error) => (error == null ? resolve() : reject(error)));
  });
}

async function sendChanges(target: ControlTarget, channel: Channel, signal: AbortSignal): Promise<null> {
  const to = channel.outgoing(STREAM.stdout);
  channel.send({ type: 'started' });
  await send(target.exportChanges(signal), to, signal);
  return null;
}

async function sendAudit(path: string, channel: Channel, signal: AbortSignal): Promise<null> {
  channel.send({ type: 'started' });
  try {
    await send(Readable.from(readAudit(path)), channel.outgoing(STREAM.stdout), signal);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
    throw new DecantError('NOT_FOUND', 'The bottle has no audit, since its network is sealed.', { cause: error });
  }
  return null;
}

async function send(from: NodeJS.ReadableStream, to: Writable, signal: AbortSignal): Promise<void> {
  await pipeline(from instanceof Readable ? from : Readable.from(from), to, { signal });
}
