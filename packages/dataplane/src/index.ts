export {
  signBlob,
  signDownload,
  signUpload,
  uploadArtifact,
  type SignCallOptions,
  type UploadArtifactOptions,
} from './blob-client.ts';
export { createFileObjectStore, type FileObjectStoreOptions } from './file-store.ts';
export { createObjectGateway, type ObjectGateway, type ObjectGatewayOptions } from './gateway.ts';
export { createMemoryObjectStore } from './memory-store.ts';
export type { UploadFault } from './object-errors.ts';
export { encodeKey, faultOfKey, MAX_KEY_BYTES } from './object-key.ts';
export { blobPartSource, filePartSource, type PartBody, type PartSource } from './part-source.ts';
export { createBlobSigner, type BlobSigner, type BlobSignerOptions, type SignOptions } from './signer.ts';
export {
  MAX_EXPIRES_SECONDS,
  presignUrl,
  verifyPresigned,
  type Credentials,
  type PresignOptions,
  type VerifiedRequest,
  type VerifyOptions,
} from './sigv4.ts';
export { uploadMultipart, type UploadOptions, type UploadResult } from './upload.ts';
