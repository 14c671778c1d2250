import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

import { BUILD_FIELDS, buildFieldsSchema, DecantError, formatBytes, quote, type BuildFields } from '@decant/core';
import { Busboy } from '@fastify/busboy';

import { checked } from '../http.ts';

/** A submission as it came, its context in a file. */
export interface Submission {
  readonly fields: BuildFields;
  /** Undefined when the request had no context of its own. */
  readonly context: { readonly file: string; readonly sizeBytes: number; readonly sha256: string } | undefined;
}

/** Most bytes of one text field: a Dockerfile, or the build arguments. */
const MAX_FIELD_BYTES = 1024 * 1024;
const MAX_FIELDS = 32;

type Text = Map<string, string>;

/**
 * Reads a multipart submission, streaming the context into a file of the directory. Unknown fields are ignored, as
 * clients may be newer.
 * @throws USAGE naming the field, BUILD_CONTEXT_BYTES, BUILD_CONTEXT_INVALID when the request ends early.
 */
export async function readSubmission(
  request: Request,
  directory: string,
  limits: { readonly contextBytes: number },
): Promise<Submission> {
  const type = request.headers.get('content-type') ?? '';
  if (!/^multipart\/form-data\s*;/i.test(type) || request.body === null) {
    throw new DecantError('USAGE', 'A build is submitted as multipart/form-data.');
  }
  const texts: Text = new Map();
  const context = await readParts(request, type, join(directory, 'context'), texts, limits.contextBytes);
  return { fields: fieldsOf(texts), context };
}

async function readParts(
  request: Request,
  type: string,
  file: string,
  texts: Text,
  limit: number,
): Promise<Submission['context']> {
  let parser: InstanceType<typeof Busboy>;
  try {
    parser = new Busboy({
      headers: { 'content-type': type },
      limits: { fieldSize: MAX_FIELD_BYTES, fields: MAX_FIELDS, files: 1, parts: MAX_FIELDS + 1, fileSize: limit },
      // Clients differ in what they give besides; the name of the part is what counts.
      isPartAFile: (name) => name === BUILD_FIELDS.context,
    });
  } catch (error) {
    throw new DecantError('USAGE', 'The multipart request has no usable boundary.', { cause: error });
  }
  let written: Promise<NonNullable<Submission['context']>> | undefined;
  let refused: DecantError | undefined;
  let open: Readable | undefined;
  const refuse = (error: DecantError) => {
    refused ??= error;
    // The part that is being read would otherwise wait for more.
    open?.destroy(refused);
    parser.destroy(refused);
  };
  parser.on('field', (name, value, _nameCut, valueCut) => {
    if (valueCut) refuse(new DecantError('USAGE', `The field ${name} has more than ${formatBytes(MAX_FIELD_BYTES)}.`));
    else if (texts.has(name)) refuse(new DecantError('USAGE', `The field ${name} is given twice.`));
    else texts.set(name, value);
  });
  parser.on('fieldsLimit', () => refuse(new DecantError('USAGE', `The form has more than ${MAX_FIELDS} fields.`)));
  parser.on('filesLimit', () => refuse(new DecantError('USAGE', 'The form has more than one context.')));
  parser.on('file', (_name, stream) => {
    open = stream;
    const hash = createHash('sha256');
    let sizeBytes = 0;
    stream.on('limit', () =>
      refuse(
        new DecantError('BUILD_CONTEXT_BYTES', `The build context has more than ${formatBytes(limit)}.`, {
          hint: 'Exclude what the build does not need in a .dockerignore file.',
          details: { limit },
        }),
      ),
    );
    const counted = async function* (pieces: AsyncIterable<Buffer>) {
      for await (const piece of pieces) {
        hash.update(piece);
        sizeBytes += piece.length;
        yield piece;
      }
    };
    written = pipeline(stream, counted, createWriteStream(file, { flags: 'wx', mode: 0o600 })).then(() => ({
      file,
      sizeBytes,
      sha256: hash.digest('hex'),
    }));
    // It is awaited below; until then a failure is not an unhandled one.
    written.catch(() => undefined);
  });
  try {
    await pipeline(Readable.fromWeb(request.body as Parameters<typeof Readable.fromWeb>[0]), parser);
    if (refused !== undefined) throw refused;
    return await written;
  } catch (error) {
    open?.destroy();
    await written?.catch(() => undefined);
    request.signal.throwIfAborted();
    throw refused ?? submissionError(error);
  }
}

function submissionError(error: unknown): unknown {
  const message = error instanceof Error ? error.message : String(error);
  if (!/multipart|unexpected end|part terminated|malformed|boundary/i.test(message)) return error;
  return new DecantError('BUILD_CONTEXT_INVALID', 'The multipart request is broken or ends early.', { cause: error });
}

function fieldsOf(texts: Text): BuildFields {
  const { buildArgs, nydusConvert } = BUILD_FIELDS;
  const args = texts.get(buildArgs);
  const nydus = texts.get(nydusConvert);
  const value: Record<string, unknown> = Object.fromEntries(texts);
  delete value[BUILD_FIELDS.context];
  value[buildArgs] = args === undefined || args === '' ? {} : jsonOf(args, buildArgs);
  if (nydus === undefined || nydus === '') delete value[nydusConvert];
  else value[nydusConvert] = booleanOf(nydus, nydusConvert);
  // A form cannot leave a field out as easily as it can leave it empty.
  for (const [name, text] of Object.entries(value))
    if (text === '' && name !== BUILD_FIELDS.imageName) delete value[name];
  return checked(buildFieldsSchema, value, 'The form');
}

function jsonOf(text: string, name: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw new DecantError('USAGE', `The field ${name} is not JSON.`, { details: { path: [name] }, cause: error });
  }
}

function booleanOf(text: string, name: string): boolean {
  if (/^(true|1)$/i.test(text)) return true;
  if (/^(false|0)$/i.test(text)) return false;
  throw new DecantError('USAGE', `The field ${name} is ${quote(text)}, not true or false.`, {
    details: { path: [name] },
  });
}
