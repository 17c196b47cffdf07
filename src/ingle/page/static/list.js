// The list of conversations at the side, search, Learning and sign-out.

const DAY = 86400000;

export default {
  props: {
    rows: { type: Array, default: () => [] },
    more: Boolean,
    current: { type: String, default: "" },
    words: { type: String, default: "" },
    who: { type: String, default: "" },
  },
  emits: ["new", "open", "rename", "remove", "search", "more", "learning"],
  template: `
    <aside class="side" aria-label="Conversations">
      <div class="head">
        <svg class="mark" aria-hidden="true"><use href="#i-hearth"></use></svg><span class="name">Ingle</span>
        <button class="quiet only-narrow" type="button" aria-label="Close" @click="shut">
          <svg class="i" aria-hidden="true"><use href="#i-close"></use></svg>
        </button>
      </div>
      <button class="new" type="button" title="New conversation (Ctrl K)" @click="$emit('new'), shut()">
        <svg class="i" aria-hidden="true"><use href="#i-new"></use></svg>New conversation
      </button>
      <label class="search">
        <svg class="i" aria-hidden="true"><use href="#i-search"></use></svg>
        <input type="search" v-model="sought" placeholder="Search" aria-label="Search conversations" maxlength="1000" @input="search" @keydown.esc.stop="clear">
      </label>
      <nav aria-label="Conversations">
        <template v-for="group in groups" :key="group.name">
          <h3>{{ group.name }}</h3>
          <ul>
            <li v-for="row in group.rows" :key="row.id" :class="{ current: row.id === current }">
              <form v-if="renaming === row.id" @submit.prevent="rename(row)">
                <input v-model="title" maxlength="200" aria-label="Title" @keydown.esc.stop="renaming = ''" @blur="rename(row)">
              </form>
              <template v-else>
                <a :href="'/c/' + row.id" :title="row.title" :aria-current="row.id === current ? 'page' : null" @click="go($event, row)">
                  {{ row.title }}<span v-if="row.busy" class="busy" role="img" aria-label="An answer is being written"></span>
                </a>
                <button class="quiet" type="button" :aria-label="'Rename ' + row.title" title="Rename" @click="begin(row)">
                  <svg class="i" aria-hidden="true"><use href="#i-pencil"></use></svg>
                </button>
                <button class="quiet" type="button" :aria-label="'Delete ' + row.title" title="Delete" @click="ask(row)">
                  <svg class="i" aria-hidden="true"><use href="#i-trash"></use></svg>
                </button>
              </template>
            </li>
          </ul>
        </template>
        <p v-if="!rows.length">{{ words ? "No conversation has these words." : "Your conversations appear here." }}</p>
        <button v-if="more" class="quiet older" type="button" @click="$emit('more')">Older</button>
      </nav>
      <button class="quiet open-learning" type="button" aria-haspopup="dialog" @click="$emit('learning'), shut()">
        <svg class="i" aria-hidden="true"><use href="#i-learning"></use></svg>Learning
      </button>
      <a class="quiet open-account" href="/account">
        <svg class="i" aria-hidden="true"><use href="#i-account"></use></svg>Account
      </a>
      <form v-if="who" class="who" method="post" action="/sign-out" @submit="forget"><span :title="who">{{ who }}</span><button class="quiet">Sign out</button></form>
      <dialog ref="sure" aria-label="Delete a conversation" @close="doomed = null">
        <form method="dialog">
          <h2>Delete this conversation?</h2>
          <p>“{{ doomed?.title }}” is deleted for good. Your ratings, corrections and memories from it stay: you can forget them under Learning.</p>
          <div class="buttons"><button value="">Cancel</button><button class="main" value="yes" @click="$emit('remove', doomed.id)">Delete</button></div>
        </form>
      </dialog>
    </aside>`,
  data: () => ({ sought: "", renaming: "", title: "", doomed: null }),
  computed: {
    groups() {
      const midnight = new Date().setHours(0, 0, 0, 0);
      const groups = [
        { name: "Today", from: midnight, rows: [] },
        { name: "Yesterday", from: midnight - DAY, rows: [] },
        { name: "Earlier", from: 0, rows: [] },
      ];
      for (const row of this.rows) groups.find((group) => new Date(row.at) >= group.from).rows.push(row);
      return groups.filter((group) => group.rows.length);
    },
  },
  methods: {
    forget() {
      // What was typed is not for whoever signs in next.
      for (const name of Object.keys(sessionStorage)) if (name.startsWith("ingle.")) sessionStorage.removeItem(name);
    },
    shut() {
      document.body.classList.remove("drawer");
    },
    go(event, row) {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // in a tab of its own
      event.preventDefault();
      this.$emit("open", row.id);
      this.shut();
    },
    search() {
      clearTimeout(this.wait);
      this.wait = setTimeout(() => this.$emit("search", this.sought), 200);
    },
    clear() {
      this.sought = "";
      this.search();
    },
    begin(row) {
      [this.renaming, this.title] = [row.id, row.title];
      this.$nextTick(() => this.$el.querySelector("nav input").select());
    },
    rename(row) {
      if (this.renaming === row.id && this.title.trim() && this.title !== row.title) this.$emit("rename", [row.id, this.title]);
      this.renaming = "";
    },
    ask(row) {
      this.doomed = row;
      this.$refs.sure.showModal();
    },
  },
};
