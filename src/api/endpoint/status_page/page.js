'use strict'
// Asks /status once a second while the page is seen, and draws what it says.

const EVERY_MS = 1000,
	WAIT_MS = 5000,
	PAUSE_MAX_MS = 15000,
	SHOWN_MS = 180000,
	WINDOW_MS = 10000
const READ_MAX = 2 << 20,
	VALUE_MAX = 65536,
	ROWS_MAX = 500

const KINDS = {
	read: ['Reads', '/get and GET /kv/…'],
	write: ['Writes', '/set, /delete, /batch, PUT and DELETE /kv/…'],
	stream: ['Streams', '/scan, /watch, /snapshot, /digest, /metrics'],
	health: ['Health', '/health, /livez, /readyz, /leader, /replica'],
	admin: [
		'Control',
		'/status, which this page asks once a second, and what a controller sends',
	],
	other: ['Other', 'Unknown paths, and what is not HTTP'],
}
const OWNERS = {
	memtables: ['New writes', 'Memtables: what was written lately'],
	runs: ['Merged data', 'Sorted runs'],
	largeValues: ['Large values', 'Kept once; counted for each layer that they are in'],
	log: ['Log for replicas', 'Replicas and watches that reconnect find there what they missed'],
	snapshots: ['Snapshots', 'Older data that backups, scans and new replicas still read'],
	connections: ['Connections', 'Requests and answers on their way'],
}
const PARTS = {
	queuedUs: 'queued',
	executedUs: 'executed',
	diskUs: 'disk',
	acksUs: 'replicas',
	roleUs: 'change of role',
	sendingUs: 'sending',
}

const $ = id => document.getElementById(id)
const make = (tag, props, ...children) => {
	const element = Object.assign(document.createElement(tag), props)
	element.append(...children)
	return element
}
const draw = (tag, attributes, text = '') => {
	const element = document.createElementNS('http://www.w3.org/2000/svg', tag)
	for (const name in attributes) element.setAttribute(name, attributes[name])
	element.textContent = text
	return element
}
const say = (id, ...content) => $(id).replaceChildren(...content)
const soft = text => make('span', { className: 'soft' }, text)
const bad = text => make('span', { className: 'bad' }, text)
const code = text => make('code', {}, text)
const row = (...cells) =>
	make('tr', {}, ...cells.map(cell => (cell.tagName === 'TH' ? cell : make('td', {}, cell))))
const head = (name, about, fill) => {
	const dot = make('i', { className: 'dot' })
	dot.style.background = fill
	return make(
		'th',
		{ scope: 'row' },
		dot,
		make('span', { className: 'hint', title: about }, name),
	)
}
const list = (id, rows) => {
	$(id).tBodies[0].replaceChildren(...rows)
	$(id).hidden = !rows.length
}
const color = index => `var(--c${index})`
const part = (share, fill, title = '') => {
	const block = make('i', { title })
	block.style.flex = share
	block.style.background = fill
	return block
}

// Numbers for people: three digits and a unit.
const three = n => (n >= 100 ? n.toFixed(0) : n >= 10 ? n.toFixed(1) : n.toFixed(2))
const count = n => n.toLocaleString('en-US')
const perSecond = n => (n >= 100 ? count(Math.round(n)) : n.toFixed(1))
const plural = (n, one, more = `${one}s`) => `${count(n)} ${n === 1 ? one : more}`
const bytes = n => {
	const at = n < 1024 ? 0 : Math.min(4, Math.floor(Math.log2(n) / 10))
	return `${at ? three(n / 1024 ** at) : n} ${['B', 'KiB', 'MiB', 'GiB', 'TiB'][at]}`
}
const time = us =>
	us == null
		? '–'
		: us >= 1e6
			? `${three(us / 1e6)} s`
			: us >= 1e3
				? `${three(us / 1e3)} ms`
				: `${us.toFixed(0)} µs`
const span = ms => {
	const s = Math.floor(ms / 1000),
		[m, h, d] = [60, 3600, 86400].map(n => Math.floor(s / n))
	return d ? `${d} d ${h % 24} h` : h ? `${h} h ${m % 60} min` : m ? `${m} min` : `${s} s`
}
const tile = (id, value, about, tone = '') => {
	const [number, unit] = value.split(' ')
	say(`t-${id}`, number, unit ? make('small', {}, unit) : '')
	say(`s-${id}`, about)
	$(`s-${id}`).className = tone
}

// Asking the node. The token goes along as a header, never in an address.
const TOKEN = 'db-node token'
let token = sessionStorage.getItem(TOKEN)
async function ask(path, { headers, signal = AbortSignal.timeout(WAIT_MS), ...options } = {}) {
	if (token) headers = { ...headers, Authorization: `Bearer ${token}` }
	const response = await fetch(path, {
		cache: 'no-store',
		credentials: 'omit',
		redirect: 'error',
		headers,
		signal,
		...options,
	})
	if (response.ok) return response
	const { status } = response,
		said = await response.json().catch(() => ({}))
	if (status === 401) lock()
	throw Object.assign(new Error(said.error || `Status ${status}`), {
		status,
		leader: response.headers.get('X-Leader'),
	})
}
// What is read of an answer at most; and whether that was all.
async function read(response, max) {
	const reader = response.body.getReader(),
		pieces = []
	for (let size = 0; size <= max;) {
		const { done, value } = await reader.read()
		if (done) return [new Blob(pieces), true]
		pieces.push(value)
		size += value.length
	}
	reader.cancel()
	return [new Blob(pieces).slice(0, max), false]
}

function lock() {
	clearTimeout(timer)
	unfollow()
	say('token-error', token ? 'That is not the token of this node.' : '')
	token = null
	sessionStorage.removeItem(TOKEN)
	$('gate').hidden = false
	$('all').hidden = $('notice').hidden = $('forget').hidden = $('pick').hidden = true
	live('', 'Locked')
	$('token').focus()
}
$('token-form').onsubmit = event => {
	event.preventDefault()
	const given = $('token').value.trim()
	// A header takes no other signs, and no token has them.
	if (!/^[!-~]+$/.test(given))
		return say(
			'token-error',
			'A token has letters, digits and signs of ASCII, and no spaces.',
		)
	token = given
	$('token').value = ''
	sessionStorage.setItem(TOKEN, token)
	poll()
}
$('forget').onclick = () => {
	token = null
	lock()
}

// One request at a time, none while the page is hidden, and ever fewer while there is no answer.
let timer,
	asking = false,
	failures = 0,
	partition = null,
	rounds = 0,
	samples = [],
	before = null
function live(state, text) {
	$('live').className = `live ${state}`
	if ($('live').textContent !== text) say('live', text)
}
async function poll() {
	clearTimeout(timer)
	if (asking || document.hidden) return
	asking = true
	let pause = EVERY_MS
	try {
		// Now and then about all partitions; else about the one that is shown.
		const isAll = partition === null || rounds++ % 10 === 0
		const status = await (
			await ask(isAll ? '/status' : `/status?partition=${partition}`)
		).json()
		failures = 0
		$('gate').hidden = $('notice').hidden = true
		$('all').hidden = false
		$('forget').hidden = !token
		if (isAll) offer(status.partitions)
		show(status)
		live('on', `Live, up ${span(status.uptimeMs)}`)
	} catch (error) {
		if (error.status === 404) partition = null
		else if (error.status === 401) pause = 0
		else {
			pause = Math.min(EVERY_MS * 2 ** failures++, PAUSE_MAX_MS)
			const why = error.status
				? `It says: ${error.message}.`
				: 'It has stopped, or the network is down.'
			say(
				'why',
				`No answer from ${location.host}. ${why}${before ? ' What is shown is old.' : ''}` +
					` Next try in ${span(pause)}.`,
			)
			$('notice').hidden = false
			live('off', (document.title = 'No answer'))
		}
	}
	asking = false
	clearTimeout(timer)
	if (pause && !document.hidden) timer = setTimeout(poll, pause)
}
$('now').onclick = poll
document.onvisibilitychange = () => {
	if (document.hidden) {
		clearTimeout(timer)
		unfollow()
		live('', 'Paused while hidden')
	} else if ($('gate').hidden) {
		poll()
		follow()
	}
}

function offer(partitions) {
	const ids = partitions.map(({ id }) => id)
	if (!ids.includes(partition)) partition = ids.length ? ids[0] : null
	$('pick').hidden = ids.length < 2
	const select = $('partition')
	if (select.dataset.ids !== `${ids}`) {
		select.dataset.ids = ids
		say(
			'partition',
			...partitions.map(({ id, role }) => make('option', { value: id }, `${id}: ${role}`)),
		)
	}
	select.value = partition
}
$('partition').onchange = event => {
	partition = Number(event.target.value)
	before = listed = null
	unfollow()
	list('rows', [])
	$('more').hidden = true
	say('scanned')
	poll()
}

// Statistics between two answers.
const sum = numbers => numbers.reduce((all, n) => all + n, 0)
const since = (newer, older, name) =>
	newer.counts[name].map((n, at) => n - older.counts[name][at])
function percentile(counts, share, bounds) {
	let left = sum(counts) * share
	if (!left) return null
	const at = counts.findIndex(n => (left -= n) <= 0),
		from = at ? bounds[at - 1] : 0
	return from + ((bounds[at] || from * 2) - from) * (1 + left / counts[at])
}
// The oldest sample of the window that ends with the newest, without a gap between them.
function oldest() {
	const newest = samples[samples.length - 1]
	let at = samples.length - 1
	while (!samples[at].isFirst && newest.t - samples[at].t < WINDOW_MS) at--
	return samples[at]
}
function add(status) {
	const last = samples[samples.length - 1],
		now = performance.now(),
		t = status.uptimeMs
	const isFirst = !last || t < last.t || now - last.now > 4 * EVERY_MS
	const sample = { now, t, isFirst, counts: {}, rates: {}, late: {} }
	for (const { name, counts } of status.requests.groups) sample.counts[name] = counts
	while (samples.length && samples[0].now < now - SHOWN_MS) samples.shift()
	if (samples.length) samples[0].isFirst = true
	samples.push(sample)
	for (const name in isFirst ? {} : sample.counts) {
		sample.rates[name] = (sum(since(sample, last, name)) * 1000) / Math.max(1, t - last.t)
		sample.late[name] = percentile(
			since(sample, oldest(), name),
			0.99,
			status.requests.boundsUs,
		)
	}
	return sample
}

function show(status) {
	const sample = add(status),
		shown = status.partitions.find(({ id }) => id === partition)
	const from = oldest(),
		seconds = (sample.t - from.t) / 1000,
		bounds = status.requests.boundsUs
	const recent = name => since(sample, from, name),
		names = Object.keys(KINDS)
	document.title = `${shown ? shown.role : 'no role'}, ${location.host}`
	const { commit, version, loop } = status
	say(
		'foot',
		`db-node ${version}${commit ? ` (${commit})` : ''} · ` +
			`${plural(loop.connections, 'connection')} of ${count(loop.connectionsMax)} · ` +
			`${plural(loop.watchers, 'watch', 'watches')} · asked once a second`,
	)

	const total = sum(names.flatMap(name => sample.counts[name]))
	tile(
		'rate',
		seconds ? perSecond(sum(names.flatMap(recent)) / seconds) : '–',
		`${count(total)} since the start`,
	)
	const keyed = recent('read').map((n, at) => n + recent('write')[at]),
		half = percentile(keyed, 0.5, bounds)
	tile(
		'late',
		time(percentile(keyed, 0.99, bounds)),
		half == null ? 'no reads or writes lately' : `half within ${time(half)}`,
	)
	const { allocatedBytes, limitBytes } = status.memory
	tile(
		'memory',
		bytes(allocatedBytes),
		limitBytes
			? `${((allocatedBytes / limitBytes) * 100).toFixed(0)} % of ${bytes(limitBytes)}`
			: 'no limit is set',
	)

	list(
		'groups',
		names.map((name, index) => {
			const counts = recent(name)
			return row(
				head(...KINDS[name], color(index)),
				seconds ? perSecond(sum(counts) / seconds) : '–',
				time(percentile(counts, 0.5, bounds)),
				time(percentile(counts, 0.99, bounds)),
				count(sum(sample.counts[name])),
			)
		}),
	)
	plot('rates', names, perSecond)
	plot('late', names, time)
	showMemory(status.memory)
	showSlow(status.requests, status.config.slowRequestMs)
	$('parts').hidden = !shown
	if (shown) showPartition(status, shown)
	else showNone(status.loading)
	before = shown
}

// Rates from zero on; durations on a scale of powers of ten.
function plot(field, names, words) {
	const svg = $(`p-${field}`),
		isLog = field === 'late',
		width = svg.clientWidth || 500,
		height = 170,
		left = 54,
		bottom = 20,
		top = 8
	const { now, [field]: newest } = samples[samples.length - 1]
	const highest = Math.max(
		...samples.flatMap(sample => names.map(name => sample[field][name] || 0)),
	)
	const step = 10 ** Math.floor(Math.log10(Math.max(highest, 4) / 4)),
		wide = step * [1, 2, 5, 10].find(n => n * step * 4 >= highest)
	const ticks = isLog
		? Array.from(
				{ length: Math.max(3, Math.ceil(Math.log10(highest))) },
				(_, at) => 10 ** (at + 1),
			)
		: [0, 1, 2, 3, 4].map(n => n * wide)
	const low = ticks[0],
		high = ticks[ticks.length - 1]
	const share = value =>
		isLog ? Math.log(Math.max(value, low) / low) / Math.log(high / low) : value / high
	const y = value => height - bottom - share(value) * (height - bottom - top)
	const x = at => width - ((now - at) / SHOWN_MS) * (width - left)
	const parts = ticks.flatMap(tick => [
		draw('line', { class: 'rule', x1: left, x2: width, y1: y(tick), y2: y(tick) }),
		draw(
			'text',
			{ x: left - 8, y: y(tick) + 4, 'text-anchor': 'end' },
			isLog ? time(tick).replace(/\.0+/, '') : count(tick),
		),
	])
	for (const minutes of [3, 2, 1, 0]) {
		parts.push(
			draw(
				'text',
				{
					x: x(now - minutes * 60000),
					y: height - 4,
					'text-anchor': ['end', 'middle', 'middle', 'start'][minutes],
				},
				minutes ? `−${minutes} min` : 'now',
			),
		)
	}
	names.forEach((name, index) => {
		const lines = [[]]
		for (const sample of samples) {
			const value = sample[field][name]
			if (sample.isFirst || value == null) lines.push([])
			if (value != null)
				lines[lines.length - 1].push(`${x(sample.now).toFixed(1)},${y(value).toFixed(1)}`)
		}
		if (samples.some(sample => sample[field][name])) {
			for (const line of lines.filter(line => line.length))
				parts.push(
					draw('polyline', {
						points: [...line, line[line.length - 1]].join(' '),
						stroke: color(index),
					}),
				)
		}
	})
	svg.setAttribute('viewBox', `0 0 ${width} ${height}`)
	const current = names
		.filter(name => newest[name])
		.map(name => `${KINDS[name][0]} ${words(newest[name])}`)
	svg.setAttribute(
		'aria-label',
		`The last three minutes. Now: ${current.join(', ') || 'nothing'}`,
	)
	svg.replaceChildren(...parts)
}

function showMemory({ allocatedBytes, byOwner }) {
	const owners = Object.keys(OWNERS).map(name => [...OWNERS[name], byOwner[name]])
	owners.push([
		'The rest',
		'Indexes, buffers, statistics',
		Math.max(0, allocatedBytes - sum(Object.values(byOwner))),
	])
	const total = sum(owners.map(owner => owner[2])) || 1,
		tint = at => (at < 6 ? color([0, 2, 5, 1, 3, 6][at]) : color(4))
	say(
		'm-bar',
		...owners.map(([name, , size], at) => (size ? part(size / total, tint(at), name) : '')),
	)
	list(
		'owners',
		owners.map(([name, about, size], at) =>
			row(
				head(name, about, tint(at)),
				bytes(size),
				soft(`${((size / total) * 100).toFixed(0)} %`),
			),
		),
	)
}

function showSlow({ slow, slowRecent }, limit) {
	say(
		'slow-about',
		!limit
			? 'Not looked for: the node was started with --slow-request-ms 0.'
			: `${slow ? count(slow) : 'No'} request${slow > 1 ? 's' : ''} took longer than ${limit} ms ` +
				`(--slow-request-ms) since the start.` +
				(slow ? ' The last ones, without their keys:' : ''),
	)
	list(
		'slow',
		slowRecent.map(request => {
			const parts = Object.keys(PARTS)
				.map((name, at) => [PARTS[name], request[name], color(at)])
				.filter(part => part[1] >= 1000)
			const more = request.count > 1 ? ` and ${request.count - 1} more` : ''
			return row(
				soft(`${span(request.agoMs)} ago`),
				make(
					'span',
					{},
					code(`${request.method} ${request.route}`),
					` ${request.status}${more}`,
				),
				time(request.tookUs),
				make(
					'span',
					{},
					make(
						'span',
						{ className: 'stack' },
						...parts.map(([name, us, fill]) => part(us, fill, name)),
					),
					parts.map(([name, us]) => `${name} ${time(us)}`).join(', '),
				),
			)
		}),
	)
}

function showNone(loading) {
	tile(
		'role',
		loading ? 'Loading' : 'None',
		loading
			? `${((loading.doneBytes / Math.max(1, loading.totalBytes)) * 100).toFixed(0)} % of ` +
				`${bytes(loading.totalBytes)} are read`
			: 'waits for a controller: POST /partition/assign',
		'warn',
	)
	tile('keys', '–', '')
}
function showPartition({ config, draining }, shown) {
	const { replicas, role, state, lastVersion, levels } = shown
	// In sync is what holds all that was written up to the answer before.
	const due = Math.min(lastVersion, before ? before.lastVersion : lastVersion)
	const isInSync = replica => replica.state !== 'snapshot' && replica.appliedVersion >= due
	const good = replicas.filter(isInSync).length
	const about =
		state !== 'leading'
			? state
			: replicas.length
				? `${good} of ${plural(replicas.length, 'replica')} in sync`
				: 'takes reads and writes'
	tile(
		'role',
		draining ? 'Stopping' : role[0].toUpperCase() + role.slice(1),
		about,
		good < replicas.length || !/leading|in sync/.test(state) ? 'warn' : '',
	)
	const places = [shown.memtableEntries, ...levels.map(({ entries }) => entries)].filter(n => n)
	tile(
		'keys',
		`${places.length > 1 ? '≤\u202f' : ''}${count(sum(places))}`,
		places.length > 1 ? 'at most, until all is merged' : `version ${count(lastVersion)}`,
	)
	showLevels(shown)
	showDisk(config, shown)
	showReplicas(config, shown, isInSync)
}

function showLevels({ memtableEntries, memtableBytes, levels, debt }) {
	const rows = [['New', 'Memtable: takes the writes', 1, memtableEntries, memtableBytes]]
	for (const { level, layers, entries, bytes: size } of levels) {
		rows.push([
			...(level
				? [`Level ${level}`, 'Sorted runs: the deeper, the larger and older']
				: ['Frozen', 'Full memtables that wait to be merged']),
			layers,
			entries,
			size,
		])
	}
	const widest = Math.sqrt(Math.max(...rows.map(row => row[4]), 1))
	say(
		'levels',
		...rows.map(([name, about, layers, entries, size]) => {
			const bar = make('div', {
				className: size ? 'bar' : 'bar none',
				title: `${plural(layers, 'layer')}. The width grows with the square root of the size.`,
			})
			bar.append(
				...Array.from({ length: size ? Math.min(layers, 24) : 1 }, () => make('i')),
			)
			bar.style.width = `${Math.max(2, (Math.sqrt(size) / widest) * 100)}%`
			return make(
				'li',
				{},
				make('span', { className: 'hint', title: about }, name),
				make('div', {}, bar),
				soft(`${plural(entries, 'entry', 'entries')} · ${bytes(size)}`),
			)
		}),
	)
	$('merging').className = debt ? 'merging busy' : 'merging'
	say(
		'merging',
		debt
			? `Merging: about ${bytes(debt)} are still to be moved.`
			: 'Nothing is left to merge.',
	)
}

const facts = (id, list) =>
	say(
		id,
		...list
			.filter(fact => fact[2] != null)
			.flatMap(([name, about, value, tone = '']) => [
				make('dt', { title: about }, name),
				make('dd', { className: tone }, value),
			]),
	)
function showDisk(config, { disk, lastVersion, durableVersion, logBytes }) {
	const sync = {
		always: 'before it is answered',
		interval: `every ${config.fsyncIntervalMs} ms`,
		never: 'when the system likes',
	}[config.durability]
	if (disk)
		say(
			'disk-about',
			`Each write goes to a log on disk, synced ${sync} (--fsync ${config.durability}); ` +
				'now and then all data goes to a checkpoint.',
		)
	else
		say(
			'disk-about',
			'Data is in memory only: it is gone when the node stops. ',
			code('--data-dir DIR'),
			' keeps it.',
		)
	const behind = lastVersion - durableVersion,
		saved = disk && disk.checkpointVersion
	facts('disk', [
		[
			'Newest write',
			'Each write of a partition has the next number',
			`version ${count(lastVersion)}`,
		],
		[
			'Log in memory',
			'For replicas and watches that reconnect, and for new writes',
			bytes(logBytes),
		],
		...(disk
			? [
					[
						'Safe on disk',
						'Synced: it survives a loss of power',
						behind ? `all but the last ${count(behind)}` : 'all of it',
					],
					[
						'Checkpoint',
						'A start reads it, and then the log behind it',
						saved ? `${plural(lastVersion - saved, 'version')} ago` : 'none yet',
					],
					[
						'Log on disk',
						'Shorter after each checkpoint',
						`${bytes(disk.logBytes)} in ${plural(disk.logFiles, 'file')}`,
					],
					['Directory', '--data-dir', config.dataDir],
					[
						'Checkpoints given up',
						'For lack of room, as a rule',
						disk.checkpointsGivenUp || null,
						'warn',
					],
					['Writes wait', 'They go on by themselves', disk.stall, 'warn'],
					[
						'Disk failed',
						'No writes until the node is started again',
						disk.failure,
						'bad',
					],
				]
			: []),
	])
}

function showReplicas({ minAcks }, { leader, replicas, lastVersion }, isInSync) {
	if (leader) say('repl-about', 'This node follows a leader and keeps a copy of its data.')
	else if (replicas.length)
		say(
			'repl-about',
			'They follow this node. A write ' +
				(minAcks
					? `is answered once ${minAcks} confirmed it (--min-acks).`
					: 'does not wait for them, unless it asks for that.'),
		)
	else
		say(
			'repl-about',
			'None follows this node. To start one: ',
			code(`db-node --port 9002 --replica-of http://${location.host}`),
		)
	list(
		'replicas',
		replicas.map(replica => {
			const good = isInSync(replica),
				lag = version => count(Math.max(0, lastVersion - version))
			const words =
				replica.state === 'snapshot'
					? `gets a copy: ${bytes(replica.snapshotSentBytes)} sent`
					: good
						? 'in sync'
						: 'catching up'
			return row(
				make('th', { scope: 'row', className: 'key' }, replica.address),
				make('span', { className: `badge ${good ? 'good' : 'warn'}` }, words),
				lag(replica.appliedVersion),
				lag(replica.durableVersion),
				soft(`${span(replica.silentMs)} ago`),
			)
		}),
	)
	facts(
		'leader',
		leader
			? [
					['Leader', '', leader.address || 'not known'],
					[
						'State',
						'',
						leader.inSync ? 'in sync' : leader.state,
						leader.inSync ? 'good' : 'warn',
					],
					[
						'Behind',
						'Writes of the leader that are not here yet',
						leader.lag == null ? 'not known' : plural(leader.lag, 'write'),
					],
					['Obstacle', '', leader.obstacle, 'warn'],
				]
			: [],
	)
}

// Keys are bytes: what is no text comes as base64, and goes back as the bytes themselves.
const percent = (key, encoding) =>
	encoding
		? atob(key).replace(/[^]/g, c => `%${c.charCodeAt(0).toString(16).padStart(2, '0')}`)
		: encodeURIComponent(key)
const here = () => (partition === null ? '' : `&partition=${partition}`)
function complain(id, error) {
	const isSilent = error.name === 'TimeoutError' || error instanceof TypeError
	say(id, bad(isSilent ? 'No answer from the node.' : error.message), ' ')
	if (/^https?:/.test(error.leader))
		$(id).append(make('a', { href: error.leader }, 'To the leader'))
}

async function get(key, encoding) {
	const response = await ask(`/get?key=${percent(key, encoding)}${here()}`, {
		headers: { Accept: 'application/octet-stream' },
	})
	const header = name => response.headers.get(name),
		[data, isWhole] = await read(response, VALUE_MAX),
		ttl = header('X-TTL')
	const size = Number(header('Content-Length')) || data.size,
		version = Number(header('ETag').match(/\d+/)[0])
	const about = 
		`Version ${count(version)}, ${bytes(size)}, ` +
		(ttl ? `expires in ${ttl} s.` : 'does not expire.')
	try {
		$('value').value = new TextDecoder('utf-8', { fatal: isWhole }).decode(
			await data.arrayBuffer(),
		)
		say('answer', about, isWhole ? '' : ' The first 64 KiB are shown.')
	} catch {
		$('value').value = ''
		say('answer', about, ' It is no text.')
	}
}
$('one').onsubmit = async event => {
	event.preventDefault()
	const key = $('key').value,
		what = event.submitter ? event.submitter.value : 'get',
		ttl = $('ttl').value.trim()
	try {
		if (what === 'get') return await get(key)
		if (what === 'delete') {
			const { deleted } = await (
				await ask(`/delete?key=${percent(key)}${here()}`, { method: 'DELETE' })
			).json()
			return say('answer', deleted ? 'Deleted.' : 'There was no such key.')
		}
		if (ttl && !(ttl > 0))
			return say('answer', bad('Expires after: a number of seconds, or nothing.'))
		const body = JSON.stringify({
			key,
			value: $('value').value,
			ttl: ttl ? Number(ttl) : undefined,
		})
		const { version } = await (
			await ask(`/set?${here().slice(1)}`, {
				method: 'POST',
				headers: { 'Content-Type': 'application/json' },
				body,
			})
		).json()
		say('answer', `Set, version ${count(version)}.`)
	} catch (error) {
		if (error.status === 404 && what === 'get') say('answer', 'There is no such key.')
		else complain('answer', error)
	}
}
for (const id of ['value', 'ttl']) {
	$(id).onkeydown = event => {
		if (event.key !== 'Enter' || (id === 'value' && !event.ctrlKey && !event.metaKey)) return
		event.preventDefault()
		$('one').requestSubmit($('set'))
	}
}

// The list of keys, and its changes.
let listed = null,
	stream = null
const nameOf = ({ key, keyEncoding }) => (keyEncoding ? '\u0001' : '\u0000') + key
const lines = () => [...$('rows').tBodies[0].rows]
function line(item) {
	const { key, keyEncoding, value, encoding } = item
	const open = make(
		'button',
		{ type: 'button', className: 'link key', title: 'Read it' },
		keyEncoding ? `${key} (base64)` : key,
	)
	open.onclick = () => {
		if (!keyEncoding) $('key').value = key
		get(key, keyEncoding).catch(error => complain('answer', error))
	}
	const shown =
		value == null
			? soft('a large value')
			: encoding
				? soft(`no text, ${bytes(Math.floor((value.length * 3) / 4))}`)
				: value.slice(0, 200)
	return Object.assign(row(open, shown, count(item.version)), { name: nameOf(item) })
}
async function page(after) {
	const path = `/scan?prefix=${encodeURIComponent(listed.prefix)}${after}${here()}&limit=`
	let data,
		isWhole = false
	// Large values make a page shorter; one that is too large by itself is left out.
	for (const limit of ['50', '5', '1', '1&values=false']) {
		if (!isWhole) [data, isWhole] = await read(await ask(path + limit), READ_MAX)
	}
	const { items, next, nextEncoding, position } = JSON.parse(await data.text())
	listed.next = next == null ? '' : `&after=${percent(next, nextEncoding)}`
	listed.position ||= position
	$('rows').tBodies[0].append(...items.map(line))
	tell()
}
function tell() {
	const n = lines().length
	$('rows').hidden = !n
	$('more').hidden = !listed.next || n >= ROWS_MAX
	say(
		'scanned',
		`${n ? plural(n, 'key') : 'No keys'}${listed.next ? ', and there are more' : ''}.` +
			(stream ? ' Changes are followed.' : ''),
	)
}
const more = after => page(after).catch(error => complain('scanned', error))
$('scan').onsubmit = async event => {
	event.preventDefault()
	unfollow()
	listed = { prefix: $('prefix').value }
	list('rows', [])
	await more('')
	follow()
}
$('more').onclick = () => more(listed.next)
$('follow').onchange = () => {
	unfollow()
	if (listed) $('scan').requestSubmit()
}
function unfollow() {
	if (stream) stream.abort()
	stream = null
}
// An EventSource cannot send the token, so the stream of events is read by hand.
async function follow() {
	if (!listed || !listed.position || !$('follow').checked || document.hidden || stream) return
	const mine = (stream = new AbortController())
	tell()
	try {
		const path = 
			`/watch?prefix=${encodeURIComponent(listed.prefix)}` +
			`&since=${listed.position}${here()}`
		const response = await ask(path, {
			headers: { Accept: 'text/event-stream' },
			signal: mine.signal,
		})
		const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
		for (let rest = ''; ;) {
			const { done, value } = await reader.read()
			if (done) break
			const blocks = (rest + value).split('\n\n'),
				changes = new Map()
			rest = blocks.pop()
			for (const block of blocks) {
				const [, id] = block.match(/^id: (.*)$/m) || [],
					[, data] = block.match(/^data: (.*)$/m) || []
				listed.position = id || listed.position
				if (data) changes.set(nameOf(JSON.parse(data)), JSON.parse(data))
			}
			changes.forEach(apply)
			tell()
		}
	} catch (error) {
		// What was missed is no longer in the log: the list begins anew.
		if (error.status === 410) return $('scan').requestSubmit()
	}
	if (stream !== mine) return
	stream = null
	tell()
	setTimeout(follow, 2 * EVERY_MS)
}
function apply(change, name) {
	const rows = lines(),
		found = rows.find(line => line.name === name),
		next = rows.find(line => line.name > name)
	if (change.op === 'delete') return found && (found.className = 'gone')
	const changed = Object.assign(line(change), { className: 'new' })
	if (found) found.replaceWith(changed)
	// What belongs to a page that is not shown yet comes with that page.
	else if (rows.length < ROWS_MAX && (next || !listed.next))
		$('rows').tBodies[0].insertBefore(changed, next || null)
}

// Colors: as the system says, or as chosen here.
const THEMES = ['auto', 'dark', 'light'],
	THEME = 'db-node theme'
let theme = Math.max(0, THEMES.indexOf(localStorage.getItem(THEME)))
function paint() {
	document.documentElement.dataset.theme = THEMES[theme]
	say('theme', `Theme: ${THEMES[theme]}`)
}
$('theme').onclick = () => {
	theme = (theme + 1) % 3
	localStorage.setItem(THEME, THEMES[theme])
	paint()
}
paint()
say('address', location.host)
poll()
