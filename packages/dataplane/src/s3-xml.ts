import { MAX_PARTS, type UploadedPart } from '@decant/core';

import { uploadInvalid } from './object-errors.ts';

/**
 * The few XML documents of S3 that multipart uploads need:
 *
 *     <CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>"…"</ETag></Part>…</CompleteMultipartUpload>
 *     <CompleteMultipartUploadResult><Location/><Bucket/><Key/><ETag/></CompleteMultipartUploadResult>
 *     <Error><Code/><Message/></Error>
 */
const NAMESPACE = 'http://s3.amazonaws.com/doc/2006-03-01/';

/** Most bytes of a completion document: 10,000 parts of 512 bytes. */
export const MAX_COMPLETE_BYTES = MAX_PARTS * 512;

/** An element with its children and its own text. */
interface Element {
  readonly name: string;
  readonly children: Element[];
  text: string;
}

const MAX_DEPTH = 8;
const ENTITIES: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };

/**
 * Reads a document of elements and text. Attributes are skipped; there are no comments within elements, no
 * document types and no entities but the five of XML and character references.
 * @throws UPLOAD_INVALID with the offset at fault.
 */
function parse(text: string): Element {
  const token = /<\?xml[^>]{0,200}\?>|<(\/?)([A-Za-z][\w.:-]{0,99})((?:\s[^<>]{0,2000})?)(\/?)>|([^<]+)/y;
  const root: Element = { name: '', children: [], text: '' };
  const stack = [root];
  while (token.lastIndex < text.length) {
    const offset = token.lastIndex;
    const fail = () => uploadInvalid('part-list', `The XML document cannot be read at offset ${offset}.`);
    const match = token.exec(text);
    const top = stack.at(-1);
    if (match === null || top === undefined) throw fail();
    const [, closing, name, , empty, plain] = match;
    if (plain !== undefined) {
      if (top === root && plain.trim() !== '') throw fail();
      top.text += unescape(plain);
    } else if (name !== undefined && closing === '/') {
      if (top === root || top.name !== name || empty === '/') throw fail();
      stack.pop();
    } else if (name !== undefined) {
      if (stack.length > MAX_DEPTH || (top === root && root.children.length > 0)) throw fail();
      const element: Element = { name, children: [], text: '' };
      top.children.push(element);
      if (empty !== '/') stack.push(element);
    }
  }
  const document = root.children[0];
  if (stack.length !== 1 || document === undefined) {
    throw uploadInvalid('part-list', `The XML document ends too early, at offset ${text.length}.`);
  }
  return document;
}

function unescape(text: string): string {
  return text.replace(/&(#x[0-9a-fA-F]{1,6}|#\d{1,7}|[a-z]{1,6});/g, (whole, name: string) => {
    if (!name.startsWith('#')) return ENTITIES[name] ?? whole;
    const point = name[1] === 'x' ? Number.parseInt(name.slice(2), 16) : Number(name.slice(1));
    return point <= 0x10ffff ? String.fromCodePoint(point) : whole;
  });
}

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

function childText(element: Element, name: string): string | undefined {
  return element.children.find((child) => child.name === name)?.text.trim();
}

/** The parts of a completion, as the client listed them. @throws UPLOAD_INVALID for anything else. */
export function parseCompletion(text: string): UploadedPart[] {
  const document = parse(text);
  if (document.name !== 'CompleteMultipartUpload') {
    throw uploadInvalid('part-list', 'The document is not a CompleteMultipartUpload.');
  }
  return document.children.map((part) => {
    const number = childText(part, 'PartNumber') ?? '';
    const etag = childText(part, 'ETag') ?? '';
    if (part.name !== 'Part' || !/^\d{1,5}$/.test(number) || etag === '') {
      throw uploadInvalid('part-list', 'A part of the document lacks its PartNumber or ETag.');
    }
    return { partNumber: Number(number), etag: etag.replace(/^"(.*)"$/, '$1') };
  });
}

/** The document that completes an upload. */
export function formatCompletion(parts: readonly UploadedPart[]): string {
  const list = parts.map(
    ({ partNumber, etag }) => `<Part><PartNumber>${partNumber}</PartNumber><ETag>${escape(`"${etag}"`)}</ETag></Part>`,
  );
  return `<CompleteMultipartUpload xmlns="${NAMESPACE}">${list.join('')}</CompleteMultipartUpload>`;
}

/** The answer to a completion. */
export function formatCompletionResult(key: string, location: string, etag: string): string {
  return (
    `<?xml version="1.0" encoding="UTF-8"?>\n<CompleteMultipartUploadResult xmlns="${NAMESPACE}">` +
    `<Location>${escape(location)}</Location><Key>${escape(key)}</Key><ETag>${escape(`"${etag}"`)}</ETag>` +
    '</CompleteMultipartUploadResult>'
  );
}

export interface S3Error {
  readonly code: string;
  readonly message: string;
}

export function formatS3Error({ code, message }: S3Error): string {
  return (
    '<?xml version="1.0" encoding="UTF-8"?>\n' +
    `<Error><Code>${escape(code)}</Code><Message>${escape(message)}</Message></Error>`
  );
}

/** What an answer's body says: the name of its document, and the error when it is one. */
export function parseS3Answer(text: string): { readonly document?: string; readonly error?: S3Error } {
  try {
    const document = parse(text.trim());
    if (document.name !== 'Error') return { document: document.name };
    const code = childText(document, 'Code') ?? '';
    return { document: 'Error', error: { code, message: childText(document, 'Message') ?? '' } };
  } catch {
    return {};
  }
}
