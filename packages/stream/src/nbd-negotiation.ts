import type { Socket } from 'node:net';

import type { RandomAccess } from '@decant/cas';
import { DecantError, quote } from '@decant/core';

import {
  decodeInfoRequest,
  encodeBlockSizeInfo,
  encodeExportInfo,
  encodeExportNameAnswer,
  encodeGreeting,
  encodeNameInfo,
  encodeOptionReply,
  encodeServer,
  FIXED_NEWSTYLE,
  IHAVEOPT,
  INFO,
  MOST_OPTION_BYTES,
  MOST_OPTIONS,
  NO_ZEROES,
  OPTION,
  REPLY,
  REPLY_ERROR,
} from './nbd-protocol.ts';
import type { SocketReader } from './socket-reader.ts';

export type NbdExports = ReadonlyMap<string, RandomAccess>;

/**
 * Greets a client and answers its options until it chooses an export.
 * @returns the export, or undefined when the client left.
 * @throws NBD_PROTOCOL when the client breaks the protocol; the connection is then of no more use.
 */
export async function negotiate(
  socket: Socket,
  reader: SocketReader,
  exports: NbdExports,
): Promise<{ readonly name: string; readonly disk: RandomAccess } | undefined> {
  socket.write(encodeGreeting());
  const flags = (await reader.exactly(4))?.readUInt32BE(0);
  if (flags === undefined) return undefined;
  if ((flags & FIXED_NEWSTYLE) === 0 || (flags & ~(FIXED_NEWSTYLE | NO_ZEROES)) !== 0) {
    throw broken(`it asks for handshake flags 0x${flags.toString(16)}`);
  }
  for (let count = 0; count < MOST_OPTIONS; count++) {
    const head = await reader.exactly(16);
    if (head === undefined) return undefined;
    if (head.readBigUInt64BE(0) !== IHAVEOPT) throw broken('an option does not begin with its magic number');
    const option = head.readUInt32BE(8);
    const length = head.readUInt32BE(12);
    if (length > MOST_OPTION_BYTES) throw broken(`an option has ${length} bytes of data`);
    const data = await reader.exactly(length);
    if (data === undefined) return undefined;
    const reply = (type: number, body?: Uint8Array) => socket.write(encodeOptionReply(option, type, body));
    switch (option) {
      case OPTION.exportName: {
        // This option has no error reply: closing is all that can be done.
        const found = find(exports, data.toString('utf8'));
        if (found === undefined) throw broken(`there is no export ${quote(data.toString('utf8'))}`);
        socket.write(encodeExportNameAnswer(found.disk.sizeBytes, (flags & NO_ZEROES) === 0));
        return found;
      }
      case OPTION.abort:
        reply(REPLY.ack);
        return undefined;
      case OPTION.list:
        if (length > 0) reply(REPLY_ERROR.invalid, Buffer.from('NBD_OPT_LIST has no data'));
        else {
          for (const name of exports.keys()) reply(REPLY.server, encodeServer(name));
          reply(REPLY.ack);
        }
        break;
      case OPTION.info:
      case OPTION.go: {
        const request = decodeInfoRequest(data);
        if (request === undefined) {
          reply(REPLY_ERROR.invalid, Buffer.from('the lengths in the option do not add up'));
          break;
        }
        const found = find(exports, request.name);
        if (found === undefined) {
          reply(REPLY_ERROR.unknown, Buffer.from('no such export'));
          break;
        }
        reply(REPLY.info, encodeExportInfo(found.disk.sizeBytes));
        if (request.infos.includes(INFO.name)) reply(REPLY.info, encodeNameInfo(found.name));
        reply(REPLY.info, encodeBlockSizeInfo());
        reply(REPLY.ack);
        if (option === OPTION.go) return found;
        break;
      }
      default:
        reply(REPLY_ERROR.unsupported);
    }
  }
  throw broken(`it sent more than ${MOST_OPTIONS} options`);
}

/** The empty name is the default export: the only one, if there is only one. */
function find(exports: NbdExports, name: string): { name: string; disk: RandomAccess } | undefined {
  const disk = exports.get(name);
  if (disk !== undefined) return { name, disk };
  const [only] = exports;
  return name === '' && exports.size === 1 && only !== undefined ? { name: only[0], disk: only[1] } : undefined;
}

function broken(what: string): DecantError {
  return new DecantError('NBD_PROTOCOL', `The NBD client is not one this server can talk to: ${what}.`);
}
