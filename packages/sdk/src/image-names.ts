import {
  formatImageName,
  imageDetailSchema,
  imageListSchema,
  isImageId,
  namedImageSchema,
  nameHistorySchema,
  parseImageName,
  type ImageDetail,
  type NamedImage,
  type NameHistory,
} from '@decant/core';

import type { Session, WorkOptions } from './session.ts';

/** Most pages a listing follows, of 1,000 names each. */
const MAX_PAGES = 1000;

export async function listImages(session: Session, { signal }: WorkOptions): Promise<NamedImage[]> {
  const images: NamedImage[] = [];
  let cursor: string | null = null;
  for (let page = 0; page < MAX_PAGES; page++) {
    const query: Record<string, string> = { limit: '1000', ...(cursor === null ? {} : { cursor }) };
    const answer: { images: NamedImage[]; nextCursor: string | null } = await session.client.json(
      imageListSchema,
      'GET',
      '/v1/images',
      { query, signal },
    );
    images.push(...answer.images);
    cursor = answer.nextCursor;
    if (cursor === null) break;
  }
  return images;
}

export async function inspectImage(session: Session, ref: string, { signal }: WorkOptions): Promise<ImageDetail> {
  return session.client.json(imageDetailSchema, 'GET', imagePath(ref), { signal });
}

export async function removeName(session: Session, name: string, { signal }: WorkOptions): Promise<void> {
  await session.client.request('DELETE', namePath(name), { signal });
}

export async function tagImage(
  session: Session,
  ref: string,
  name: string,
  { signal }: WorkOptions,
): Promise<NamedImage> {
  const path = namePath(name);
  const { image } = await inspectImage(session, ref, { signal });
  return session.client.json(namedImageSchema, 'PUT', path, {
    body: { imageId: image.id },
    query: isImageId(ref) ? {} : { from: formatImageName(parseImageName(ref)) },
    signal,
  });
}

export async function nameHistory(session: Session, name: string, { signal }: WorkOptions): Promise<NameHistory> {
  return session.client.json(nameHistorySchema, 'GET', `${namePath(name)}/history`, { signal });
}

/** Path of an image by name or id; a name is checked here, before anything is sent. */
export function imagePath(ref: string): string {
  return `/v1/images/${encodeURIComponent(isImageId(ref) ? ref : formatImageName(parseImageName(ref)))}`;
}

function namePath(name: string): string {
  return `/v1/names/${encodeURIComponent(formatImageName(parseImageName(name)))}`;
}
