import { PassThrough, Readable } from 'node:stream';
import { once } from 'node:events';

import { AgentLog, findRecord, readAudit } from '@decant/bottle';
import { DecantError, isDecantError } from '@decant/core';

import { findBottle } from './bottle-client.ts';
import { recordsDirectory } from './bottle-directories.ts';
import type { Session, WorkOptions } from './session.ts';

export interface BottleLogsRequest {
  readonly slug: string;
  /** Wait for more until the agent ends. */
  readonly follow?: boolean | undefined;
  /** Only so many lines before the end. */
  readonly tailLines?: number | undefined;
}

/** Output of an agent, or an audit; both streams are to be read. */
export interface BottleOutput {
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** Rejects when the streams were cut off. */
  readonly done: Promise<void>;
}

/** What the agent of a bottle wrote; of one that has ended, what is kept of it. @throws NOT_FOUND */
export async function bottleLogs(
  session: Session,
  { slug, follow, tailLines }: BottleLogsRequest,
  { signal }: WorkOptions,
): Promise<BottleOutput> {
  const client = await runningOrNone(session, slug);
  if (client !== undefined) return client.logs({ follow, tailLines }, signal);
  const { directory } = await findRecord(recordsDirectory(session.paths), slug);
  const log = AgentLog.open(directory);
  const streams = { stdout: new PassThrough(), stderr: new PassThrough() };
  const send = async () => {
    try {
      for await (const { stream, bytes } of log.read({ tailLines, signal })) {
        if (!streams[stream].write(bytes)) await once(streams[stream], 'drain');
      }
    } finally {
      log[Symbol.dispose]();
      streams.stdout.end();
      streams.stderr.end();
    }
  };
  const done = send();
  done.catch(() => undefined);
  return { ...streams, done };
}

/** The audit of a bottle, JSON lines; of one that has ended, the files that stay. @throws NOT_FOUND */
export async function bottleAudit(session: Session, slug: string, { signal }: WorkOptions): Promise<BottleOutput> {
  const client = await runningOrNone(session, slug);
  if (client !== undefined) return client.audit(signal);
  const { record } = await findRecord(recordsDirectory(session.paths), slug);
  const stdout = Readable.from(readAudit(record.auditFile, signal));
  const done = new Promise<void>((resolve, reject) => {
    stdout.once('close', resolve);
    stdout.once('error', (error) => {
      reject(new DecantError('NOT_FOUND', `The audit of ${slug} cannot be read.`, { cause: error }));
    });
  });
  done.catch(() => undefined);
  return { stdout, stderr: new PassThrough().end(), done };
}

async function runningOrNone(session: Session, slug: string) {
  try {
    return await findBottle(session, slug);
  } catch (error) {
    if (isDecantError(error, 'NOT_FOUND') || isDecantError(error, 'BOTTLE_ENDED')) return undefined;
    throw error;
  }
}
