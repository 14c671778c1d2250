import type { Socket } from 'node:net';

import type { RandomAccess } from '@decant/cas';
import { DecantError } from '@decant/core';

import {
  BLOCK_SIZES,
  COMMAND,
  COMMAND_FLAG_FUA,
  decodeRequest,
  encodeAnswer,
  ERROR,
  REQUEST_BYTES,
  type NbdRequest,
} from './nbd-protocol.ts';
import type { SocketReader } from './socket-reader.ts';

/** Requests of one connection that are worked on at a time, and their bytes: beyond them its socket is not read. */
const MOST_REQUESTS = 64;
const MOST_BYTES = BLOCK_SIZES.largest;

/**
 * Answers requests until the client disconnects, in the order in which the data arrives.
 * @throws NBD_PROTOCOL when the client breaks the protocol.
 */
export async function transmit(
  socket: Socket,
  reader: SocketReader,
  disk: RandomAccess,
  options: { readonly signal: AbortSignal; readonly onReadError: (error: unknown) => void },
): Promise<void> {
  const running = new Set<Promise<void>>();
  let bytes = 0;
  const isFull = (length: number) => running.size >= MOST_REQUESTS || (bytes > 0 && bytes + length > MOST_BYTES);
  for (;;) {
    const head = await reader.exactly(REQUEST_BYTES);
    if (head === undefined) break;
    const request = decodeRequest(head);
    if (request === undefined) {
      throw new DecantError('NBD_PROTOCOL', 'An NBD request does not begin with its magic number.');
    }
    if (request.type === COMMAND.disconnect) break;
    if (request.type === COMMAND.write) {
      if (request.length > BLOCK_SIZES.largest) {
        throw new DecantError('NBD_PROTOCOL', `An NBD client sends ${request.length} bytes to a read-only export.`);
      }
      if (!(await reader.skip(request.length))) break;
    }
    const error = judge(request, disk.sizeBytes);
    const length = error === ERROR.none ? request.length : 0;
    while (isFull(length)) await Promise.race(running);
    bytes += length;
    const work = (error === ERROR.none ? answerRead(request) : send([encodeAnswer(request.cookie, error)])).finally(
      () => {
        running.delete(work);
        bytes -= length;
      },
    );
    running.add(work);
  }
  await Promise.all(running);

  async function answerRead(request: NbdRequest): Promise<void> {
    let data: Uint8Array;
    try {
      data = await disk.read(Number(request.offset), request.length, { signal: options.signal });
    } catch (error) {
      if (options.signal.aborted) return;
      options.onReadError(error);
      await send([encodeAnswer(request.cookie, ERROR.EIO)]);
      return;
    }
    await send([encodeAnswer(request.cookie, ERROR.none), data]);
  }

  /** Resolves when the socket has taken the parts in, so that a client that does not read is not read from either. */
  function send(parts: readonly Uint8Array[]): Promise<void> {
    return new Promise((resolve) => {
      if (socket.destroyed) return resolve();
      socket.cork();
      parts.forEach((part, index) => {
        // Called with an error, too, when the socket is closed before.
        if (index === parts.length - 1) socket.write(part, () => resolve());
        else socket.write(part);
      });
      socket.uncork();
    });
  }
}

/** The error a request is answered with, or none for a read to carry out. */
function judge(request: NbdRequest, sizeBytes: number): number {
  switch (request.type) {
    case COMMAND.write:
    case COMMAND.trim:
    case COMMAND.writeZeroes:
      return ERROR.EPERM;
    case COMMAND.read: {
      const inside = request.offset + BigInt(request.length) <= BigInt(sizeBytes);
      const lengthFits = request.length > 0 && request.length <= BLOCK_SIZES.largest;
      return inside && lengthFits && (request.flags & ~COMMAND_FLAG_FUA) === 0 ? ERROR.none : ERROR.EINVAL;
    }
    default:
      return ERROR.EINVAL;
  }
}
