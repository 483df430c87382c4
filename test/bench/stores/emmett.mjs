// Prints the schema of Emmett's PostgreSQL store, as the package itself creates it.
import { getPostgreSQLEventStore } from '@event-driven-io/emmett-postgresql';

const store = getPostgreSQLEventStore('postgresql://localhost/unused');
console.log(store.schema.sql());
await store.close();
