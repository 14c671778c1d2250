import { SqliteAdmissions } from './sqlite-admissions.ts';
import { SqliteContextFiles } from './sqlite-context-files.ts';
import { SqliteImageBuilds } from './sqlite-image-builds.ts';
import { SqliteImages } from './sqlite-images.ts';
import { SqliteJobs } from './sqlite-jobs.ts';
import { SqliteKeys } from './sqlite-keys.ts';
import { SqliteNames } from './sqlite-names.ts';
import { SqliteSnapshots } from './sqlite-snapshots.ts';
import { SqliteDatabase } from './sqlite.ts';
import type { MetadataStore } from './store.ts';

/** Opens the metadata store in one SQLite file. Several processes may have it open at once. */
export async function openSqliteMetadata(path: string): Promise<MetadataStore> {
  const db = await SqliteDatabase.open(path);
  const keys = new SqliteKeys(db);
  const jobs = new SqliteJobs(db);
  const images = new SqliteImages(db);
  const names = new SqliteNames(db);
  return {
    keys,
    jobs,
    images,
    names,
    builds: new SqliteAdmissions(db, { keys, jobs, images, names }),
    imageBuilds: new SqliteImageBuilds(db),
    snapshots: new SqliteSnapshots(db),
    contextFiles: new SqliteContextFiles(db),
    setting: async (name, make) => {
      const read = () => db.get('SELECT value FROM settings WHERE name = ?', name);
      if (read() === undefined) {
        db.run('INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING', name, make());
      }
      return String(read()?.['value']);
    },
    [Symbol.asyncDispose]: async () => db.close(),
  };
}
