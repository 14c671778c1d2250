export type { ImagePiece } from './piece.ts';
export type { RandomAccess } from './random-access.ts';
