#include "error_place.hpp"

#include "duckdb/common/operator/cast_operators.hpp"
#include "duckdb/common/optional_idx.hpp"
#include "duckdb/common/string_util.hpp"
#include "duckdb/parser/parser.hpp"
#include "duckdb/parser/simplified_token.hpp"

namespace duckherder {

using namespace duckdb;

namespace {

struct Word {
	idx_t start;
	idx_t length;
	//! The same for all spellings of a name.
	string meaning;
};

idx_t LengthOf(const string &text, const vector<SimplifiedToken> &tokens, idx_t index) {
	auto end = index + 1 < tokens.size() ? tokens[index + 1].start : text.size();
	while (end > tokens[index].start && (StringUtil::CharacterIsSpace(text[end - 1]) || text[end - 1] == ';')) {
		end--;
	}
	return end - tokens[index].start;
}

string MeaningOf(const string &word) {
	if (word.size() > 1 && word.front() == '"' && word.back() == '"') {
		return StringUtil::Lower(StringUtil::Replace(word.substr(1, word.size() - 2), "\"\"", "\""));
	}
	if (word == "::") {
		// Which DuckDB writes as CAST.
		return "cast";
	}
	return word.empty() || word.front() == '\'' ? word : StringUtil::Lower(word);
}

vector<Word> WordsOf(const string &text) {
	vector<Word> words;
	auto tokens = Parser::Tokenize(text);
	for (idx_t i = 0; i < tokens.size(); i++) {
		if (tokens[i].type == SimplifiedTokenType::SIMPLIFIED_TOKEN_COMMENT) {
			continue;
		}
		auto length = LengthOf(text, tokens, i);
		words.push_back({tokens[i].start, length, MeaningOf(text.substr(tokens[i].start, length))});
	}
	return words;
}

//! The word of `typed` that word `index` of `sent` is: the one before which there are as many of its kind. Texts with
//! more of them on one side say nothing.
optional_idx SameWord(const vector<Word> &sent, idx_t index, const vector<Word> &typed) {
	auto &meaning = sent[index].meaning;
	idx_t before = 0;
	idx_t of_kind = 0;
	for (idx_t i = 0; i < sent.size(); i++) {
		if (sent[i].meaning == meaning) {
			of_kind++;
			before += i < index ? 1 : 0;
		}
	}
	optional_idx same;
	idx_t found = 0;
	for (idx_t i = 0; i < typed.size(); i++) {
		if (typed[i].meaning == meaning && found++ == before) {
			same = i;
		}
	}
	return found == of_kind ? same : optional_idx();
}

optional_idx WordAt(const vector<Word> &words, idx_t position) {
	for (idx_t i = 0; i < words.size(); i++) {
		if (words[i].start <= position && position < words[i].start + words[i].length) {
			return i;
		}
	}
	return optional_idx();
}

//! A place as DuckDB writes it into an error.
struct Place {
	idx_t start;
	idx_t length;
};

bool TryParse(const string &text, idx_t &number) {
	return TryCast::Operation<string_t, uint64_t>(string_t(text), number);
}

optional<Place> PlaceOf(const unordered_map<string, string> &info) {
	auto position = info.find("position");
	idx_t start;
	if (position == info.end() || !TryParse(position->second, start)) {
		return optional<Place>();
	}
	idx_t length = 0;
	auto location = info.find("location");
	if (location != info.end()) {
		auto parts = StringUtil::Split(location->second, ',');
		if (parts.size() != 2 || !TryParse(StringUtil::Replace(parts[1], "]", ""), length)) {
			length = 0;
		}
	}
	return Place {start, length};
}

optional<Place> Moved(const Place &place, const string &sent, const string &typed) {
	if (sent == typed) {
		return place;
	}
	auto sent_words = WordsOf(sent);
	auto typed_words = WordsOf(typed);
	auto first = WordAt(sent_words, place.start);
	if (!first.IsValid()) {
		return optional<Place>();
	}
	auto same = SameWord(sent_words, first.GetIndex(), typed_words);
	if (!same.IsValid()) {
		return optional<Place>();
	}
	auto &start = typed_words[same.GetIndex()];
	if (place.length == 0) {
		return Place {start.start, 0};
	}
	auto last = WordAt(sent_words, place.start + place.length - 1);
	if (last.IsValid() && last.GetIndex() > first.GetIndex() && start.length == 2 && start.meaning == "cast") {
		// `a::INTEGER` ends with what is before the parenthesis of `CAST(a AS INTEGER)`.
		last = last.GetIndex() - 1;
	}
	auto same_last = last.IsValid() ? SameWord(sent_words, last.GetIndex(), typed_words) : optional_idx();
	auto &end = same_last.IsValid() && same_last.GetIndex() >= same.GetIndex() ? typed_words[same_last.GetIndex()] : start;
	return Place {start.start, end.start + end.length - start.start};
}

} // namespace

void ThrowAbout(ClientContext &context, const string &sent, const ErrorData &error) {
	auto info = error.ExtraInfo();
	auto place = PlaceOf(info);
	if (place) {
		auto moved = Moved(*place, sent, context.GetCurrentQuery());
		info.erase("position");
		info.erase("location");
		if (moved) {
			Exception::SetQueryLocation(QueryLocation(moved->start, moved->length), info);
		}
	}
	throw Exception(info, error.Type(), error.RawMessage());
}

} // namespace duckherder
