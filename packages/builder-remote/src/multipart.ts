const encoder = new TextEncoder();
const CRLF = '\r\n';

/** A part that is a file. */
export interface MultipartFile {
  readonly name: string;
  readonly fileName: string;
  readonly type: string;
  readonly bytes: AsyncIterable<Uint8Array>;
}

/** A `multipart/form-data` body (RFC 7578) that is made while it is sent. */
export interface MultipartBody {
  readonly contentType: string;
  readonly bytes: AsyncIterable<Uint8Array>;
}

/** Text parts first, then the file. Names are ours: they hold no quotes and no line ends. */
export function multipartBody(
  fields: Readonly<Record<string, string>>,
  file: MultipartFile | undefined,
): MultipartBody {
  const boundary = `decant-${crypto.randomUUID()}`;
  async function* bytes(): AsyncGenerator<Uint8Array, void> {
    for (const [name, value] of Object.entries(fields)) {
      const head = `--${boundary}${CRLF}content-disposition: form-data; name="${name}"${CRLF}${CRLF}`;
      yield encoder.encode(`${head}${value}${CRLF}`);
    }
    if (file !== undefined) {
      const disposition = `content-disposition: form-data; name="${file.name}"; filename="${file.fileName}"`;
      yield encoder.encode(`--${boundary}${CRLF}${disposition}${CRLF}content-type: ${file.type}${CRLF}${CRLF}`);
      yield* file.bytes;
      yield encoder.encode(CRLF);
    }
    yield encoder.encode(`--${boundary}--${CRLF}`);
  }
  return { contentType: `multipart/form-data; boundary=${boundary}`, bytes: bytes() };
}
