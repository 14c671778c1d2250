/** A half-open range of bytes: `offset` up to but not including `offset + lengthBytes`. */
export interface ByteRange {
  readonly offset: number;
  readonly lengthBytes: number;
}

export interface ObjectInfo {
  readonly key: string;
  readonly sizeBytes: number;
}

export interface UploadedPart {
  /** 1 to 10,000. */
  readonly partNumber: number;
  readonly etag: string;
}

/** Pieces may be memory that is used again: a store is done with each when it asks for the next. */
export type ObjectBody = Uint8Array | AsyncIterable<Uint8Array>;

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
}

/**
 * Whole objects under keys. Keys are `/`-separated paths of 1 to 1,024 bytes with no empty, `.` or `..`
 * component (else OBJECT_KEY_INVALID). An object becomes visible whole or not at all, and survives a crash
 * once the call has returned. Writing an existing key replaces it atomically.
 */
export interface ObjectStore {
  put(key: string, body: ObjectBody, options?: CallOptions): Promise<ObjectInfo>;
  /** The bytes of the object or of a range of it. @throws OBJECT_NOT_FOUND; RangeError when the range is not inside. */
  get(key: string, options?: CallOptions & { readonly range?: ByteRange | undefined }): Promise<Uint8Array>;
  /** As `get`, in pieces; the object is opened before the first piece is asked for again. */
  stream(key: string, options?: CallOptions & { readonly range?: ByteRange | undefined }): AsyncIterable<Uint8Array>;
  head(key: string, options?: CallOptions): Promise<ObjectInfo | undefined>;
  /** Removes the object; an absent key is fine. */
  delete(key: string, options?: CallOptions): Promise<void>;
  /** Every object whose key starts with `prefix`, in byte order of the keys. */
  list(prefix: string, options?: CallOptions): AsyncIterable<ObjectInfo>;

  createMultipart(key: string, options?: CallOptions): Promise<string>;
  /** Writes one part; writing it again replaces it. @throws UPLOAD_INVALID for an unknown upload or part number. */
  putPart(
    key: string,
    uploadId: string,
    partNumber: number,
    body: ObjectBody,
    options?: CallOptions,
  ): Promise<UploadedPart>;
  /**
   * Joins the parts in ascending order; parts that are not listed are dropped. The same completion asked for again
   * within a day is answered the same, since a client may not have received the answer.
   * @throws UPLOAD_INVALID when one is missing or its etag differs; CONFLICT, retryable, while another process joins.
   */
  completeMultipart(
    key: string,
    uploadId: string,
    parts: readonly UploadedPart[],
    options?: CallOptions,
  ): Promise<ObjectInfo>;
  /** Drops the upload and its parts; an unknown upload is fine. */
  abortMultipart(key: string, uploadId: string, options?: CallOptions): Promise<void>;
}
