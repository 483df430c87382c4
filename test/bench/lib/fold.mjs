// fold.mjs STREAM SECONDS: read a stream and fold it, again and again; prints how many events a second.
import pg from 'pg';

const [stream, seconds] = process.argv.slice(2);
const client = new pg.Client({ host: process.env.PGHOST, port: process.env.PGPORT, user: process.env.PGUSER, database: process.env.PGDATABASE });
const initial = () => ({ balance: 0, deposits: 0, withdrawals: 0 });
const evolve = {
	Opened: initial,
	Deposited: (state, data) => ({ ...state, balance: state.balance + data.amount, deposits: state.deposits + 1 }),
	Withdrawn: (state, data) => ({ ...state, balance: state.balance - data.amount, withdrawals: state.withdrawals + 1 }),
};

await client.connect();
let events = 0;
const start = process.hrtime.bigint();
const passed = () => Number(process.hrtime.bigint() - start) / 1e9;
do {
	const { rows } = await client.query({ name: 'read', text: 'SELECT event_type, data FROM es_read_stream($1)', values: [stream] });
	rows.reduce((state, { event_type, data }) => evolve[event_type]?.(state, data) ?? state, initial());
	events += rows.length;
} while (passed() < seconds);
console.log(events / passed());
await client.end();
